"""The table of a dry run: what would be sent to a model, by benchmark."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from bench.display.summary import data_name, plain_table, show_passed_over
from bench.terminal import printable

if TYPE_CHECKING:
    from bench.evaluation.dry_run import RequestForecast


def show(title: str, parts: "Mapping[str, RequestForecast]", console: Console) -> None:
    """Print requests, responses and tokens of each benchmark, then the splits and prompts that cannot be used."""
    console.print(title, markup=False, style="bold")
    names = {benchmark: data_name(benchmark, part) for benchmark, part in parts.items()}
    table = plain_table("data", "requests", "responses", "answered", "prompt\ntokens", "completion\nat most")
    for benchmark, part in parts.items():
        estimated = "≈ " if part.counted < part.requests else ""
        tokens = "not known" if part.prompt_tokens is None else f"{estimated}{part.prompt_tokens:,}"
        numbers = (f"{number:,}" for number in (part.requests, part.responses, part.answered))
        table.add_row(Text(printable(names[benchmark])), *numbers, tokens, f"{part.completion_tokens:,}")
    console.print(table)
    for benchmark, part in parts.items():
        show_passed_over(names[benchmark], part.passed_over, console)
        if part.unreadable:
            console.print(
                f"{names[benchmark]}: {part.unreadable} of {part.counted} prompts cannot be asked", markup=False
            )
