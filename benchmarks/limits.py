"""Limits: how many files a process may have open, which is how many connections it can hold."""

from __future__ import annotations

import resource

from .scenarios import Exchange, FirstByte, Handshakes, Idle, Resumptions, Workload

_BESIDES = 200  # what else is open: the event loop's own files, and connections that are not quite closed
_ENOUGH = 8192  # for 5,000 connections; macOS takes no more than 10,240


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as it is of use and allowed; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    reachable = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft >= reachable:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    return reachable


def files_needed(workload: Workload) -> int:
    """Return how many files each of the two processes has open at the same time."""
    match workload:
        case Exchange():
            return workload.connections + _BESIDES
        case Handshakes():
            return workload.held + workload.at_once + _BESIDES
        case Resumptions():
            return workload.at_once + _BESIDES
        case Idle():
            return workload.before + workload.connections + _BESIDES
        case FirstByte():
            return _BESIDES
