"""The language model's own row: it classifies the test rows itself, from a few examples and no training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from harness.config.schema import Positive
from harness.data.split import Split
from harness.llm.prompts import Prompts
from harness.llm.settings import Classification, Limits, Sampling, Server, Shots
from harness.methods.base import Assignment, Classified, MethodSettings, Predictor
from harness.store import digest

#: The templates that classification uses.
USED = ("system", "classify")
#: Trials that ask the same model take turns, so that its limits hold.
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
    """Folder with ``system.txt`` or ``classify.txt`` in place of ours; relative to the experiment's file."""
    templates: dict[str, str] = {}
    """The texts of the templates: filled in from ``prompts``, so that a changed prompt is another trial."""
    server: Server = Server()
    limits: Limits = Limits()
    """Over all answers of this model at this server that the store holds, those of earlier experiments too."""

    @model_validator(mode="after")
    def _no_weights(self) -> FewShotSettings:
        if self.clip is not None or self.normalize:
            raise ValueError("clip and normalize are for weights, and nothing is trained here")
        return self


class LlmFewShot(Predictor[FewShotSettings]):
    """The label that a language model gives, shown some rows of the source (first row of the paper's main table).

    A trial holds its slot of the cluster while it waits for answers; trials of one model take turns.
    """

    name = "llm_few_shot"
    hidden_settings = frozenset({"server", "limits", "templates"})

    @classmethod
    def resolve(cls, settings: FewShotSettings) -> FewShotSettings:
        """Puts the templates' texts in the place of their folder."""
        sources = Prompts(Path(settings.prompts) if settings.prompts else None, settings.templates).sources
        texts = {name: sources[name] for name in USED}
        folder = digest(texts)[:6] if settings.prompts else None  # by content, not by where it is
        return settings.model_copy(update={"prompts": folder, "templates": texts})

    def predict(self, rows: Split, examples: Split, assignment: Assignment) -> Classified:
        """One request for each row that has not been asked before.

        Raises:
            UserError: no key, a request that failed for good, a limit reached before the last row.
        """
        from harness.llm.classify import classify

        chosen = self.settings
        asked = Classification(
            sampling=Sampling(
                model=chosen.model, temperature=chosen.temperature, top_p=chosen.top_p, max_tokens=chosen.max_tokens
            ),
            server=chosen.server, limits=chosen.limits, shots=chosen.shots, descriptions=chosen.descriptions,
            seed=assignment.seed, templates=chosen.templates,
        )  # fmt: skip
        journal = assignment.scratch / f"{digest(chosen.server.base_url, chosen.model)[:16]}.jsonl"
        found = classify(asked, assignment, rows, examples, journal, patience=FOREVER)
        usage = found.usage
        costs = {
            "llm_calls": usage.calls, "llm_tokens_in": usage.tokens_in, "llm_tokens_out": usage.tokens_out,
            "llm_unparsable": found.unparsable, "llm_seconds": usage.seconds,
        }  # fmt: skip
        if found.cost is not None:
            costs["llm_cost"] = found.cost
        seconds = usage.seconds / min(chosen.server.concurrency, max(1, usage.calls))
        return Classified(found.labels, seconds, {name: float(value) for name, value in costs.items()})
