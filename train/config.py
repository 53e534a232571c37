"""Configuration of a training run: a tree of frozen records, one for each concern. No torch.

A recipe (``recipes.py``) is a function that returns a :class:`TrainConfig`; ``unmask train RECIPE --set a.b=c``
changes single fields (``settings.py``). Where a run writes and how long it may take is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_core.errors import ConfigError

OBJECTIVES = (
    "mask_stage",
    "edit_stage",
    "order_distill",
    "on_policy",
    "adapt_gated",
    "adapt_draft_head",
    "adapt_block_causal",
    "tune_edits",
)
DTYPES = ("float32", "bfloat16")


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigError` with ``message`` unless ``condition``."""
    if not condition:
        raise ConfigError(message)


def require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``allowed``."""
    require(value in allowed, f"{name} is {value!r}: one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from.

    ``source``: ``corpus`` reads the folder ``corpus`` made by ``unmask data build``; ``grammar`` generates the
    synthetic grammar task. ``sequences`` is the number of samples of one micro-batch **of all ranks together**;
    ``max_tokens`` the longest sample. ``mixture``: weight by kind of example; empty takes the corpus as it is.
    ``layouts``: fill-in-the-middle layouts drawn from, by the names of the prompt format; empty takes its default.
    """

    source: str = "corpus"
    corpus: str = ""
    sequences: int = 8
    max_tokens: int = 1024
    mixture: dict[str, float] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    held_out_sequences: int = 64

    def __post_init__(self) -> None:
        require_one_of("data.source", self.source, ("corpus", "grammar"))
        require(self.sequences > 0, f"data.sequences is {self.sequences}: at least 1")
        require(self.max_tokens > 1, f"data.max_tokens is {self.max_tokens}: at least 2")
        require(self.held_out_sequences > 0, f"data.held_out_sequences is {self.held_out_sequences}: at least 1")
        for kind, weight in self.mixture.items():
            require(weight >= 0, f"data.mixture.{kind} is {weight}: at least 0")
        require(not self.mixture or any(self.mixture.values()), "data.mixture: every weight is 0")


@dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    """Shape of a model that starts from random weights; its vocabulary is the tokenizer's."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    qkv_bias: bool = False
    qk_norm: bool = True
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 4096

    def __post_init__(self) -> None:
        for name in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            require(getattr(self, name) > 0, f"model.shape.{name} is {getattr(self, name)}: at least 1")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.shape.num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained.

    ``base``: registry name or folder of the checkpoint to start from; empty starts from random weights of ``shape``
    with ``tokenizer`` (a folder or registry name; empty takes the data source's own). ``drafter``: folder of a
    drafter to go on from. ``tuning``: folder of an edit tuning (``tune_edits``) that is merged into ``base`` before a
    drafter learns from it; ``tune_edits`` goes on from it. ``dtype``: of the forward; the trained parameters keep a
    float32 master either way.
    ``prompt_format`` and ``block_size`` go into the served checkpoint's diffusion configuration.
    """

    base: str = ""
    drafter: str = ""
    tuning: str = ""
    tokenizer: str = ""
    dtype: str = "float32"
    prompt_format: str = ""
    block_size: int = 8
    shape: ShapeConfig = ShapeConfig()

    def __post_init__(self) -> None:
        require_one_of("model.dtype", self.dtype, DTYPES)
        require(self.block_size > 0, f"model.block_size is {self.block_size}: at least 1")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Corruption: paper 3.1.

    ``schedule``: gamma(t). ``min_time``: t is clipped away from 0. ``clip_block``: clip the block's mask rate below
    at 1/B and force one mask (Stable-DiffCoder). Blocks have ``block_min`` to ``block_max`` tokens. ``edit_rate``:
    largest alpha_t of eq. 3. ``edit_weight``: weight of eq. 6's edit term. ``weight_cap`` bounds gamma'(t)/gamma(t).
    """

    schedule: str = "linear"
    min_time: float = 1e-3
    clip_block: bool = True
    block_min: int = 4
    block_max: int = 16
    edit_rate: float = 0.1
    edit_weight: float = 1.0
    weight_cap: float = 100.0

    def __post_init__(self) -> None:
        require_one_of("noise.schedule", self.schedule, ("linear", "cosine"))
        require(0 < self.min_time < 1, f"noise.min_time is {self.min_time}: between 0 and 1")
        require(
            1 <= self.block_min <= self.block_max,
            f"noise.block_min {self.block_min} and noise.block_max {self.block_max}: 1 <= block_min <= block_max",
        )
        require(0 <= self.edit_rate <= 1, f"noise.edit_rate is {self.edit_rate}: between 0 and 1")
        require(self.edit_weight >= 0, f"noise.edit_weight is {self.edit_weight}: at least 0")
        require(self.weight_cap > 0, f"noise.weight_cap is {self.weight_cap}: above 0")


@dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """Constrained order: paper 3.2. ``pool`` trajectories a sample, the best ``keep`` by ELBO are learned from.

    ``elbo_samples`` estimates of the ELBO a trajectory; ``temperatures`` to draw with; ``refresh_every`` steps the
    pool is made anew from the current model (0: once); ``pool_sequences`` samples the pool covers.
    """

    pool: int = 8
    keep: int = 2
    elbo_samples: int = 4
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    refresh_every: int = 0
    pool_sequences: int = 256
    edit_rate: float = 0.02

    def __post_init__(self) -> None:
        require(1 <= self.keep <= self.pool, f"order.keep {self.keep} and order.pool {self.pool}: 1 <= keep <= pool")
        require(self.elbo_samples > 0, f"order.elbo_samples is {self.elbo_samples}: at least 1")
        require(len(self.temperatures) > 0, "order.temperatures is empty")
        require(self.refresh_every >= 0, f"order.refresh_every is {self.refresh_every}: at least 0")
        require(self.pool_sequences > 0, f"order.pool_sequences is {self.pool_sequences}: at least 1")


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """On-policy: paper 3.3. ``length``: the ``surrogate`` of eq. 11, or ``direct`` (the ablation), or ``none``.

    ``verifier``: ``likelihood``, ``syntax``, ``tests`` or ``exact`` (the grammar task). ``rollouts`` trajectories a
    prompt; ``baseline_decay`` of the moving baseline; ``temperature`` to draw with; ``mask_weight`` keeps some of
    the mask objective in the mixture.
    """

    verifier: str = "likelihood"
    length: str = "surrogate"
    rollouts: int = 4
    temperature: float = 1.0
    baseline_decay: float = 0.9
    verifier_weight: float = 1.0
    length_weight: float = 1.0
    mask_weight: float = 0.1
    max_steps: int = 64

    def __post_init__(self) -> None:
        require_one_of("on_policy.verifier", self.verifier, ("likelihood", "syntax", "tests", "exact"))
        require_one_of("on_policy.length", self.length, ("surrogate", "direct", "none"))
        require(self.rollouts > 0, f"on_policy.rollouts is {self.rollouts}: at least 1")
        require(0 <= self.baseline_decay < 1, f"on_policy.baseline_decay is {self.baseline_decay}: from 0 to below 1")
        require(self.max_steps > 0, f"on_policy.max_steps is {self.max_steps}: at least 1")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Adapting an autoregressive base (training.md section 2).

    ``rank`` and ``alpha`` of the gated adapter; ``head_layers``, ``taps`` (empty: a third, two thirds and the end of
    the depth) and ``head_steps`` (denoising steps a draft when served) of the draft head; ``slots``: draft
    slots a sequence; ``full_mask_share``: blocks that are all masks; ``known_share``: blocks that are all revealed, of
    which a draft head learns its later steps; ``prefix_share``: of the others, those revealed from the left;
    ``draft_noise_share``: of the revealed slots, how many carry edit noise (substituted tokens); ``offset_decay``:
    weight of offset k is ``offset_decay ** k``; ``distill_weight``: share of the loss that comes from the base's own
    distribution; ``vocabulary``: the head is cut to the most frequent tokens (0: whole).
    ``edit_rank``, ``edit_alpha``, ``changed_weight``: the adapter on the clean path that learns to edit (0: none), and
    the weight of changed tokens over copied ones.
    ``remember_batches``: the run learns from its first so many batches again and again, each time with other blocks,
    and keeps what the frozen base makes of them, which is most of a step's cost on a CPU (0: every batch is new).
    """

    rank: int = 32
    alpha: float = 32.0
    head_layers: int = 2
    head_steps: int = 1
    taps: tuple[int, ...] = ()
    slots: int = 512
    full_mask_share: float = 0.5
    known_share: float = 0.0
    prefix_share: float = 0.5
    draft_noise_share: float = 0.2
    offset_decay: float = 0.9
    distill_weight: float = 0.0
    vocabulary: int = 0
    edit_rank: int = 0
    edit_alpha: float = 32.0
    changed_weight: float = 4.0
    remember_batches: int = 0

    def __post_init__(self) -> None:
        require(self.rank > 0, f"adapt.rank is {self.rank}: at least 1")
        require(self.edit_rank >= 0, f"adapt.edit_rank is {self.edit_rank}: at least 0")
        require(self.head_layers > 0, f"adapt.head_layers is {self.head_layers}: at least 1")
        require(self.head_steps > 0, f"adapt.head_steps is {self.head_steps}: at least 1")
        require(self.remember_batches >= 0, f"adapt.remember_batches is {self.remember_batches}: at least 0")
        require(self.slots > 0, f"adapt.slots is {self.slots}: at least 1")
        for name in ("full_mask_share", "known_share", "prefix_share", "draft_noise_share", "distill_weight"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"adapt.{name} is {value}: between 0 and 1")
        require(
            self.full_mask_share + self.known_share <= 1,
            f"adapt.full_mask_share {self.full_mask_share} + adapt.known_share {self.known_share}: at most 1 together",
        )
        require(0 < self.offset_decay <= 1, f"adapt.offset_decay is {self.offset_decay}: above 0, at most 1")
        require(self.changed_weight > 0, f"adapt.changed_weight is {self.changed_weight}: above 0")
        require(self.vocabulary >= 0, f"adapt.vocabulary is {self.vocabulary}: at least 0")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW. ``accumulation`` micro-batches make a step; ``clip_norm`` 0 does not clip.

    ``master_weights``: trained parameters of a bfloat16 model keep a float32 master that the optimiser moves.
    """

    learning_rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulation: int = 1
    master_weights: bool = True

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optim.learning_rate is {self.learning_rate}: above 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optim.{name} is {getattr(self, name)}: from 0 to below 1")
        require(self.eps > 0, f"optim.eps is {self.eps}: above 0")
        require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}: at least 0")
        require(self.clip_norm >= 0, f"optim.clip_norm is {self.clip_norm}: at least 0")
        require(self.accumulation > 0, f"optim.accumulation is {self.accumulation}: at least 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate over a run: warm-up, then ``constant``, ``linear`` or ``cosine`` down to ``final_ratio``.

    ``decay_over``: ``steps`` (``budget.steps``), or ``time``: the time budget, whichever of the two is used up
    first; a run decayed over time ends well when the clock stops it, but two of them are never exactly equal.
    ``decay_start``: share of the run that is spent at the full rate before the decay begins.
    """

    shape: str = "cosine"
    warmup_steps: int = 100
    final_ratio: float = 0.1
    decay_over: str = "steps"
    decay_start: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("schedule.shape", self.shape, ("constant", "linear", "cosine"))
        require_one_of("schedule.decay_over", self.decay_over, ("steps", "time"))
        require(self.warmup_steps >= 0, f"schedule.warmup_steps is {self.warmup_steps}: at least 0")
        require(0 <= self.final_ratio <= 1, f"schedule.final_ratio is {self.final_ratio}: between 0 and 1")
        require(0 <= self.decay_start < 1, f"schedule.decay_start is {self.decay_start}: from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How long and how often. ``evaluate_every`` 0 evaluates at the end only."""

    steps: int = 1000
    evaluate_every: int = 200
    log_every: int = 1

    def __post_init__(self) -> None:
        require(self.steps > 0, f"budget.steps is {self.steps}: at least 1")
        require(self.evaluate_every >= 0, f"budget.evaluate_every is {self.evaluate_every}: at least 0")
        require(self.log_every > 0, f"budget.log_every is {self.log_every}: at least 1")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved: every ``every_steps`` steps (0: never by steps) and ``every_seconds`` seconds."""

    every_steps: int = 0
    every_seconds: float = 300.0

    def __post_init__(self) -> None:
        require(self.every_steps >= 0, f"checkpoint.every_steps is {self.every_steps}: at least 0")
        require(self.every_seconds > 0, f"checkpoint.every_seconds is {self.every_seconds}: above 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: everything that decides its result, besides the code and the number of processes."""

    recipe: str
    objective: str
    seed: int = 0
    data: DataConfig = DataConfig()
    model: ModelSettings = ModelSettings()
    noise: NoiseConfig = NoiseConfig()
    order: OrderConfig = OrderConfig()
    on_policy: OnPolicyConfig = OnPolicyConfig()
    adapt: AdaptConfig = AdaptConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    budget: BudgetConfig = BudgetConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        require_one_of("objective", self.objective, OBJECTIVES)
        require(self.seed >= 0, f"seed is {self.seed}: at least 0")
