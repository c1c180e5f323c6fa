"""The language model's own row: it classifies the test rows itself, from a few examples and no training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.data.types import Split
from harness.generation.prompts import Prompts
from harness.generation.settings import Classification, Limits, Sampling, Server, Shots
from harness.methods.base import Assignment, Classified, MethodSettings, Predictor
from harness.rows import Positive
from harness.store import digest

#: The templates that classification uses.
USED = ("system", "classify")
#: Trials that ask the same server take turns, so that its limits hold.
FOREVER = -1.0


class FewShotSettings(MethodSettings):
    """Model, prompt, server. Answers are kept by content: changing the server's limits asks nothing again."""

    model: str = Field(min_length=1)
    """The model's name at the server."""
    shots: Shots = 4
    """Examples shown, drawn from the source with the trial's seed, labels as even as possible."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = 0.0
    """None leaves it to the server; some models refuse any value."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Positive = 200
    """Of one answer."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompt."""
    prompts: str | None = None
    """Folder with ``system.txt`` or ``classify.txt`` in place of ours; relative to where the command is started."""
    templates: dict[str, str] = {}
    """The texts of the templates: filled in from ``prompts``, so that a changed prompt is another trial."""
    server: Server = Server()
    limits: Limits = Limits()


class LlmFewShot(Predictor[FewShotSettings]):
    """p(y|x) as a language model says it, shown some rows of the source (first row of the paper's main table)."""

    name = "llm_few_shot"

    @classmethod
    def resolve(cls, settings: FewShotSettings) -> FewShotSettings:
        """Puts the templates' texts in the place of their folder."""
        sources = Prompts(Path(settings.prompts) if settings.prompts else None, settings.templates).sources
        return settings.model_copy(update={"prompts": None, "templates": {name: sources[name] for name in USED}})

    def predict(self, rows: Split, examples: Split, assignment: Assignment) -> Classified:
        """One request for each row that has not been asked before.

        Raises:
            UserError: no key, a request that failed for good, a limit reached before the last row.
        """
        from harness.generation.classify import classify

        chosen = self.settings
        asked = Classification(
            sampling=Sampling(
                model=chosen.model, temperature=chosen.temperature, top_p=chosen.top_p, max_tokens=chosen.max_tokens
            ),
            server=chosen.server, limits=chosen.limits, shots=chosen.shots, descriptions=chosen.descriptions,
            seed=assignment.seed, templates=chosen.templates,
        )  # fmt: skip
        found = classify(
            asked, assignment, rows, examples, assignment.scratch / f"{digest(chosen.server.base_url)[:16]}.jsonl",
            patience=FOREVER,
        )  # fmt: skip
        usage = found.usage
        costs = {
            "llm_calls": usage.calls, "llm_tokens_in": usage.tokens_in, "llm_tokens_out": usage.tokens_out,
            "llm_unparsable": found.unparsable, "llm_seconds": usage.seconds,
        }  # fmt: skip
        if found.cost is not None:
            costs["llm_cost"] = found.cost
        return Classified(found.labels, {name: float(value) for name, value in costs.items()})
