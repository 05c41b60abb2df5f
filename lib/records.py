"""What each file of a run and of a results directory holds, one record a file; docs/results.md says what it means.

Readers, checks, the rows of runs without results and the JSON Schema (`scripts/docs.py --schema`) follow from these.
"""

import dataclasses
from typing import Any, Literal

from lib.batching import Batching
from lib.files import FileDigest
from lib.monitor import lines as monitor
from lib.provenance import Provenance
from lib.schema import Amount, Count, Loss, Name, Percent, Seconds, Share, Text, Whole, nullable, parse, record
from lib.spec import RunSpec

Status = Literal["done", "diverged", "failed", "interrupted", "damaged"]


@record
class Origin(Provenance):
    """provenance.json: where a results directory came from; config: what its config was when it was made; not_compiled:
    choice -> why AUTO does without torch.compile there."""

    config: FileDigest
    not_compiled: dict[Name, Text] = dataclasses.field(default_factory=dict)


@record
class Memory:
    """Bytes in a phase of a run: of its tensors by class, and on a GPU the allocator's peaks."""

    tensors: dict[Name, Count] = dataclasses.field(default_factory=dict)
    allocated: Count | None = None
    reserved: Count | None = None


@record
class Predicted:
    """The ledger's prediction: see lib/ledger.py."""

    classes: dict[Name, Count]
    kept: Count
    multiple: Amount
    less_than_movement_pct: float


@record
class Ledger:
    """What every byte of a run is for: measured by phase; what one backward pass saves; predicted."""

    phases: dict[Name, Memory]
    activations: Count | None
    predicted: Predicted

    def tensors(self, phase: str = "train") -> dict[str, int]:
        """Class -> bytes of its tensors in a phase; {} where it was not measured."""
        return self.phases[phase].tensors if phase in self.phases else {}


@record
class Inference:
    """One batch size: median milliseconds of a call, samples a second, the allocator's peak in MiB on a GPU."""

    batch: Count
    latency_ms: Amount
    samples_per_s: Amount
    memory_mib: Amount | None


@record
class Gpu:
    """By what the monitor can tell the GPUs of a run from others."""

    uuid: Name | None
    bus: Name | None


@record
class Summary(RunSpec):
    """summary.json: the outcome of a run. Accuracies are percent, losses nats, times seconds."""

    status: Status
    reason: Text | None
    metric: Literal["accuracy", "perplexity"]
    achieved_sparsity: Share | None
    achieved_sparsity_of_all: Share | None
    first_epoch_s: Seconds | None
    first_epoch_steps: Count | None
    final_accuracy: Percent | None
    final_loss: Loss | None
    best_accuracy: Percent | None
    best_loss: Loss | None
    best_epoch: Count | None
    peak_accuracy: Percent | None
    peak_loss: Loss | None
    peak_epoch: Count | None
    std_last10: Amount | None
    peak_to_final: Amount | None
    test_accuracy_last: Percent | None
    test_accuracy_best: Percent | None
    test_accuracy_optimistic: Percent | None
    test_loss_last: Loss | None
    test_loss_best: Loss | None
    test_loss_optimistic: Loss | None
    inference: list[Inference] | None
    sample: Text | None
    damaged_images: Count
    stopped: Text | None
    steps: Count
    epochs: Count
    planned_steps: Count
    skipped_steps: Count
    batch_size: Count
    model_parameters: Count
    prunable_parameters: Count
    precision: Literal["bf16", "fp32"]
    compiled: bool
    data_hash: Name
    tokenizer: Name | None
    block: Count | None
    bytes_per_token: dict[Name, Amount] | None
    flops_per_token: Amount | None
    ledger: Ledger
    device: Name
    devices: Count
    gpus: list[Gpu]
    threads: Count
    elapsed_s: Seconds
    train_s: Seconds
    provenance: Provenance
    files: dict[Name, FileDigest]

    @property
    def spec(self) -> RunSpec:
        return RunSpec(**{f.name: getattr(self, f.name) for f in dataclasses.fields(RunSpec)})


@record
class Outcome(Summary):
    """A run in all_results.json: its summary, what the monitor's record of it comes to, perplexities of its losses,
    and its differences from the dense run of the same optimizer, base, data and seed."""

    final_perplexity: Amount | None
    best_perplexity: Amount | None
    peak_perplexity: Amount | None
    test_perplexity_last: Amount | None
    test_perplexity_best: Amount | None
    test_perplexity_optimistic: Amount | None
    test_bits_per_byte: Amount | None
    tokens_per_s: Amount | None
    mfu_pct: Amount | None
    train_memory_mean: Amount | None
    train_memory_max: Amount | None
    inference_memory_mean: Amount | None
    memory_source: Name | None
    compared_memory: Amount | None
    compared_source: Name | None
    memory_samples: Count
    energy_j: Amount | None
    energy_source: Name | None
    energy_per_accuracy_point: Amount | None
    memory_multiple: Amount | None
    memory_less_than_movement_pct: float | None
    memory_phases: dict[Name, dict[Name, Amount]]
    monitor_problem: Text | None
    efficiency_per_100mib: Amount | None
    accuracy_vs_dense: float | None = None
    gpu_memory_vs_dense: float | None = None
    gpu_memory_saving_pct: float | None = None
    elapsed_vs_dense_pct: float | None = None
    perplexity_vs_dense_pct: float | None = None


Row: Any = nullable(Outcome, (*(f.name for f in dataclasses.fields(RunSpec)), "status"))


@record
class AllResults:
    """all_results.json: every run that was started, and the ids of those that were not."""

    commit: Name | None
    provenance: Origin
    missing: list[Name]
    runs: list[Row]


@record
class PruningWindow:
    """When a run prunes: the first step it may, the last event, steps from event to event, and how many there are."""

    warmup: Count
    ramp_end: Count
    frequency: Count
    events: Count


@record
class Start:
    """metrics.jsonl, first line."""

    event: Literal["start"] = "start"
    steps: Count
    steps_per_epoch: Count
    evaluations: Count
    scale: Share
    batching: Batching | None
    device: Name
    prunable: Count
    parameters: Count
    pruning: PruningWindow


@record
class Epoch:
    """metrics.jsonl: an evaluation, and the training before it."""

    event: Literal["epoch"] = "epoch"
    epoch: Count
    step: Count
    train_loss: Loss | None
    lr: Amount
    target_sparsity: Share
    sparsity: Share
    skipped: Count
    validation_loss: Loss | None = None
    validation_accuracy: Percent | None = None
    test_loss: Loss | None = None
    test_accuracy: Percent | None = None
    train_s: Seconds
    memory: Memory
    elapsed_s: Seconds

    def loss(self, split: str) -> float | None:
        """On "validation" or "test" data; None where it was not evaluated."""
        return self.validation_loss if split == "validation" else self.test_loss

    def accuracy(self, split: str) -> float | None:
        return self.validation_accuracy if split == "validation" else self.test_accuracy


@record
class LeastDense:
    layer: Name
    density: Share


@record
class ScoresAt:
    """How far scores agree at one sparsity; every matrix has a row and a column for each score."""

    sparsity: Share
    pruned: Count
    ties: dict[Name, Count]
    jaccard_pruned: list[list[Share | None]]
    jaccard_kept: list[list[Share | None]]


@record
class ScoresState:
    """How far scores agree on one state: see lib/prune/kernel/audit.py."""

    scores: list[Name]
    step: Count
    beta1: Share
    weights: Count
    live: Count
    ranked: Count
    v_zero: Share
    v_lost: Share
    lost: dict[Name, Share]
    spearman: list[list[float | None]]
    at: list[ScoresAt]

    def __post_init__(self):
        matrices = [self.spearman, *(m for a in self.at for m in (a.jaccard_kept, a.jaccard_pruned))]
        n = len(self.scores)
        if any(len(m) != n or any(len(row) != n for row in m) for m in matrices):
            raise ValueError(f"a matrix has not the {n} rows and columns of its scores")
        if any(set(found) != set(self.scores) for found in (self.lost, *(a.ties for a in self.at))) or not self.live:
            raise ValueError("a score has no count of its ties or losses, or no weight is live")


@record
class NoScores:
    """Why scores could not be compared at an event."""

    error: Text


@record
class Prune:
    """metrics.jsonl: a pruning event."""

    event: Literal["prune"] = "prune"
    step: Count
    target_sparsity: Share
    pruned: Count
    prunable: Count
    newly_pruned: Whole
    threshold: float | None
    ties: Count
    layers: dict[Name, Share]
    least_dense: LeastDense
    mask: Name
    warnings: list[Text]
    dropped: Count | None = None
    audit: ScoresState | NoScores | None = None


@record
class End:
    """metrics.jsonl, last line of a run that came to its end."""

    event: Literal["end"] = "end"
    status: Literal["done", "diverged"]
    step: Count
    elapsed_s: Seconds


@record
class Interrupted:
    """metrics.jsonl, last line of a run that was interrupted."""

    event: Literal["interrupted"] = "interrupted"


Metric = Start | Epoch | Prune | End | Interrupted
METRICS: dict[str, type] = {c.event: c for c in (Start, Epoch, Prune, End, Interrupted)}


def parse_metric(row: dict) -> Metric:
    """The record of a line of metrics.jsonl. Raises ValueError."""
    kind = row.get("event")
    if not isinstance(kind, str) or kind not in METRICS:
        raise ValueError(f"event: {str(kind)[:20]!r} is none of {', '.join(METRICS)}")
    return parse(METRICS[kind], row)


@record
class RunScores(ScoresState):
    """The audit of one run's last state."""

    run: Name


@record
class Skipped:
    run: Name
    reason: Text


@record
class Audit:
    """audit.json: how far the scores of state pruning agree on the runs of a directory."""

    commit: Name | None
    provenance: Provenance
    sparsities: list[Share]
    scores: list[Name]
    states: list[RunScores]
    skipped: list[Skipped]

    def __post_init__(self):
        if not self.states or any(set(s.scores) != set(self.scores) or not s.at for s in self.states):
            raise ValueError("states: there is none, or one has other scores")


@record
class Graphs:
    """graphs/written.json: the pictures that the last report wrote there, and what they were."""

    files: dict[Name, FileDigest]


# File -> what a line or the whole of it holds, for the JSON Schema.
FILES: dict[str, Any] = {
    "provenance.json": Origin,
    "spec.json": RunSpec,
    "metrics.jsonl": Metric,
    "monitor.jsonl": monitor.Line,
    "summary.json": Summary,
    "all_results.json": AllResults,
    "audit.json": Audit,
    "graphs/written.json": Graphs,
}
