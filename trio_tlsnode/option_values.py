"""What the values of options may be; others are refused, and the option is named."""

from __future__ import annotations

from typing import TypeVar

from .errors import ConfigurationError, ConfigurationTypeError

T = TypeVar("T")


def check_flag(option: str, value: bool) -> bool:
    """Return an option that is on or off.

    Raises:
        ConfigurationTypeError: it is no bool: None would pass for "off", and switch off a verification.
    """
    if isinstance(value, bool):
        return value
    raise ConfigurationTypeError(
        f'The "options.{option}" property must be of type boolean. Received {value!r}', option=option
    )


def check_callable(option: str, value: object) -> None:
    """Raise `ConfigurationTypeError` if an option cannot be called."""
    if not callable(value):
        raise ConfigurationTypeError(
            # What was given instead may be a secret: a pre-shared key.
            f'The "options.{option}" property must be of type function. '
            f"Received an object of type {type(value).__name__}",
            option=option,
        )


def optional_callable(option: str, value: T) -> T:
    """Return an option that is None or can be called.

    Raises:
        ConfigurationTypeError: it is something else.
    """
    if value is not None:
        check_callable(option, value)
    return value


def check_seconds(option: str, value: float) -> float:
    """Return a time-out in seconds, which may be infinite.

    Raises:
        ConfigurationTypeError: it is no number.
        ConfigurationError: it is negative, or not a number at all.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type number. Received {value!r}', option=option
        )
    if not value >= 0:
        raise ConfigurationError(
            f'The value of "options.{option}" is out of range. It must be >= 0 seconds. Received {value!r}',
            code="ERR_OUT_OF_RANGE",
            option=option,
        )
    return value


def check_limit(option: str, value: int) -> int:
    """Return how often something may happen: an int, possibly 0.

    Raises:
        ConfigurationTypeError: it is no int.
        ConfigurationError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(
            f'The "options.{option}" property must be of type number. Received {value!r}', option=option
        )
    if value < 0:
        raise ConfigurationError(
            f'The value of "options.{option}" is out of range. It must be >= 0. Received {value}',
            code="ERR_OUT_OF_RANGE",
            option=option,
        )
    return value


def check_count(option: str, value: int) -> int:
    """Return a number of things, of which there is at least one.

    Raises:
        ConfigurationTypeError: it is no int.
        ConfigurationError: it is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(f"{option} must be an int. Received {value!r}", option=option)
    if value < 1:
        raise ConfigurationError(
            f"{option} must be at least 1. Received {value}", code="ERR_OUT_OF_RANGE", option=option
        )
    return value
