"""docs/certificate-errors.md says what really happens."""

from __future__ import annotations

import pytest
from certificate_errors_page import PAGE, fill, parts

from trio_tlsnode.diagnosis import DIAGNOSES


@pytest.mark.feature("D4")
async def test_the_page_says_of_each_code_what_making_the_failure_gives() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, await parts()) == page, "run: python tests/certificate_errors_page.py"


@pytest.mark.feature("D4")
@pytest.mark.parametrize("code", DIAGNOSES)
def test_every_code_stands_on_the_page(code: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"### {code}\n" in page or f"| `{code}` |" in page
