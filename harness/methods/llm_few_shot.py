"""Few-shot classification: a language model classifies the test rows from a few examples, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from harness.config.benchmark import TaskPrompt
from harness.config.schema import Positive
from harness.data.split import Split
from harness.llm.prompts import Prompts
from harness.llm.settings import Classification, Limits, Sampling, Server, Shots
from harness.methods.base import MethodSettings
from harness.methods.predictor import Classified, Predictor
from harness.store import digest

#: The templates that classification uses.
TEMPLATES = ("system", "classify")
#: Seconds to wait for the journal; negative: no limit. Trials of one model run one after another, within its limits.
PATIENCE = -1.0


class FewShotSettings(MethodSettings):
    """Model, prompt and server. Answers are kept by content: other limits of the server need no new requests."""

    model: str = Field(min_length=1)
    """The model's name at the server."""
    shots: Shots = 4
    """Examples shown, drawn from the source with the trial's seed, balanced over the labels as far as possible."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = 0.0
    """None: the server's default; some models accept no other."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Positive = 200
    """Of one answer."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompt."""
    prompts: str | None = None
    """Folder with ``system.txt`` or ``classify.txt`` in place of ours, relative to the experiment's file."""
    templates: dict[str, str] = {}
    """The texts of the templates, set from ``prompts``, so that another prompt is another trial."""
    server: Server = Server()
    limits: Limits = Limits()
    """For all answers of this model and server in the store, those of earlier experiments included."""

    @model_validator(mode="after")
    def _no_weights(self) -> FewShotSettings:
        if self.clip is not None or self.normalize:
            raise ValueError("clip and normalize are settings of weights, and nothing is trained with this method")
        return self


class LlmFewShot(Predictor[FewShotSettings]):
    """Labels by a language model that is shown some rows of the source (first row of the paper's main table).

    A trial keeps its resources on the cluster while it waits for answers; trials of one model run one after another.
    """

    name = "llm_few_shot"
    hidden_settings = frozenset({"server", "limits", "templates"})

    @classmethod
    def resolve(cls, settings: FewShotSettings) -> FewShotSettings:
        """Replaces the folder of templates by their texts."""
        sources = Prompts(Path(settings.prompts) if settings.prompts else None, settings.templates).sources
        texts = {name: sources[name] for name in TEMPLATES}
        folder = digest(texts)[:6] if settings.prompts else None  # identified by its content, not its path
        return settings.model_copy(update={"prompts": folder, "templates": texts})

    def predict(self, rows: Split, examples: Split, task: TaskPrompt, seed: int, scratch: Path) -> Classified:
        """Sends one request for each row without a stored answer.

        Raises:
            UserError: the key is missing, a request failed permanently, or a limit was reached before the last row.
        """
        from harness.llm.classify import classify

        settings = self.settings
        sampling = Sampling(
            model=settings.model, temperature=settings.temperature, top_p=settings.top_p,
            max_tokens=settings.max_tokens,
        )  # fmt: skip
        classification = Classification(
            sampling=sampling,
            server=settings.server, limits=settings.limits, shots=settings.shots, descriptions=settings.descriptions,
            seed=seed, templates=settings.templates,
        )  # fmt: skip
        journal = scratch / f"{digest(settings.server.base_url, settings.model)[:16]}.jsonl"
        predictions = classify(classification, task, rows, examples, journal, patience=PATIENCE)
        usage = predictions.usage
        costs = {
            "llm_calls": usage.calls, "llm_tokens_in": usage.tokens_in, "llm_tokens_out": usage.tokens_out,
            "llm_unparsable": predictions.unparsable, "llm_seconds": usage.seconds,
        }  # fmt: skip
        if predictions.cost is not None:
            costs["llm_cost"] = predictions.cost
        seconds = usage.seconds / min(settings.server.concurrency, max(1, usage.calls))
        return Classified(predictions.labels, seconds, {name: float(value) for name, value in costs.items()})
