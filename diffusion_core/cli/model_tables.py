"""What `unmask models` shows: figures of a description as JSON fields and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from diffusion_core.checkpoints.describe import Description
from diffusion_core.checkpoints.footprint import Footprint, WeightForm, cache_bytes_per_token, estimate
from diffusion_core.checkpoints.shard_plan import ShardPlan, plan_shards
from diffusion_core.config import EngineConfig
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.quantization import Quantization

if TYPE_CHECKING:
    from rich.table import Table

# Activations beside quantised weights are in bfloat16 where the machine has it.
PRECISIONS = {
    "float32": WeightForm(item_bytes=4),
    "bfloat16": WeightForm(item_bytes=2),
    "int8": WeightForm(item_bytes=2, quantization=Quantization.INT8),
    "int4": WeightForm(item_bytes=2, quantization=Quantization.INT4),
}
NUMBERS_OF_GPUS = (1, 2, 4)
GB = 1e9


def memory(found: Description, context: int) -> dict[str, Footprint]:
    """Memory by precision under the default settings on a CPU; empty where the shape is not known."""
    if found.shape is None:
        return {}
    sees_all = found.contract is not None and found.contract.attention == "bidirectional"
    kept = EngineConfig().prefix_cache_bytes
    return {
        name: estimate(found.shape, form, context=context, kept_cache_bytes=kept, sees_all=sees_all)
        for name, form in PRECISIONS.items()
    }


def fields(found: Description, context: int, *, has_plan: bool = False) -> dict[str, Any]:
    """The JSON of a model; scripts rely on these names."""
    shape, contract = found.shape, found.contract
    held = {"download_bytes": found.size_bytes, "context": context}
    needs = {name: {**asdict(each), "total": each.total} for name, each in memory(found, context).items()}
    values: dict[str, Any] = {
        "name": found.name, "title": found.title, "task": found.task, "family": found.family,
        "parameters": found.num_parameters, "size_bytes": found.size_bytes, "licence": found.licence,
        "licence_must_be_accepted": found.licence_must_be_accepted, "accepted_licence": found.accepted_licence,
        "homepage": found.homepage, "sources": list(found.sources), "downloaded": found.is_downloaded,
        "memory": {**held, "bytes": needs}, "context": shape.max_position_embeddings if shape else None,
        "block_size": contract.block_size if contract else None,
        "diffusion": contract.is_diffusion if contract else None,
        "fill_in_the_middle": found.fills_in_the_middle, "edit": found.edits,
        "verified": [asdict(each) for each in found.verified],
        "family_verified": [asdict(each) for each in found.family_verified],
    }  # fmt: skip
    if has_plan:
        values["plan"] = [plan_fields(plan_shards(_shape(found), n), context) for n in NUMBERS_OF_GPUS]
    return values


def plan_fields(plan: ShardPlan, context: int) -> dict[str, Any]:
    """The JSON of a plan: bytes of the fullest GPU, and what every GPU holds whole."""
    tokens = min(context, plan.config.max_position_embeddings)
    return {
        "gpus": plan.num_gpus,
        "weight_bytes": {name: _fullest(plan, form) for name, form in PRECISIONS.items()},
        "cache_bytes": max(gpu.cache_bytes(plan.config, tokens, 2) for gpu in plan.gpus),
        "heads": plan.gpus[0].num_heads,
        "kv_heads": plan.gpus[0].num_kv_heads,
        "splits_attention": plan.splits_attention,
        "splits_feed_forward": plan.splits_mlp,
        "sums_per_forward": plan.sums_per_forward,
        "replicated": list(plan.replicated),
        "notes": list(plan.notes),
    }


def _fullest(plan: ShardPlan, form: WeightForm) -> int:
    """Weights of the fullest GPU, which keeps its part of the head plain."""
    return max(gpu.weight_bytes(form) for gpu in plan.gpus)


def _shape(found: Description) -> ModelConfig:
    if found.shape is None:
        raise CheckpointError(f"the shape of {found.name} is not known: pull it, or give its folder")
    return found.shape


def overview(found: list[Description], context: int) -> Table:
    """All models, one a line."""
    from rich.table import Table

    table = Table(
        caption=f"GB of memory with {context} tokens of context, on a CPU. `unmask models NAME` says more, "
        "`unmask pull NAME` downloads. FIM: fills in the middle. seen: when these weights were verified here; family: "
        "only tiny models of the family. A licence with * must be accepted."
    )
    for heading in ("name", "size", "licence", *_SHORT, "context", "block", "FIM", "edit", "here", "seen"):
        table.add_column(heading, no_wrap=heading != "licence", justify="right" if heading in _SHORT else "left")
    for each in found:
        needs = memory(each, context)
        sizes = [f"{needs[name].total / GB:.1f}" if name in needs else "?" for name in PRECISIONS]
        table.add_row(
            each.name, _billions(each), each.licence.split(" ", 1)[0] + "*" * each.licence_must_be_accepted, *sizes,
            str(each.shape.max_position_embeddings) if each.shape else "?", _block(each),
            _yes(each.fills_in_the_middle), _yes(each.edits), _yes(each.is_downloaded), _seen(each),
        )  # fmt: skip
    return table


_SHORT = ("f32", "bf16", "int8", "int4")


def _billions(found: Description) -> str:
    number = found.num_parameters
    if number is None:
        return "?"
    return f"{number / 1e9:.1f}B" if number >= 5e7 else f"{number / 1e6:.1f}M"


def _block(found: Description) -> str:
    if found.contract is None:
        return "?"
    if found.contract.attention == "bidirectional":
        return "all"
    return str(found.contract.block_size) if found.contract.is_diffusion else "1"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _seen(found: Description) -> str:
    if found.verified:
        return max(each.date for each in found.verified)
    return "family" if found.family_verified else "nothing"


def details(found: Description, context: int) -> Table:
    """One model, all that is known."""
    from rich.table import Table

    table = Table(title=found.name, show_header=False, title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("value")
    for name, value in _detail_rows(found, context):
        table.add_row(name, value)
    return table


def _detail_rows(found: Description, context: int) -> list[tuple[str, str]]:
    licence = found.licence or "not known"
    if found.licence_must_be_accepted:
        licence += f"; accepted: {found.accepted_licence or 'not yet'}"
    rows = [
        ("what it is", found.title or "a folder in our own layout"),
        ("family", found.family or "not recorded"),
        ("parameters", _billions(found)),
        ("download", f"{found.size_bytes / GB:.2f} GB" if found.size_bytes else "size known when it is pulled"),
        ("downloaded", _yes(found.is_downloaded) + (f", from {', '.join(found.sources)}" if found.sources else "")),
        ("licence", licence),
        ("context", f"{found.shape.max_position_embeddings} tokens" if found.shape else "not known"),
        ("block", _block(found) if _block(found) != "all" else "all positions see each other"),
        ("fill in the middle", _yes(found.fills_in_the_middle)),
        ("edit", _yes(found.edits)),
    ]
    for name, needs in memory(found, context).items():
        parts = f"weights {needs.weights / GB:.2f}, {context} tokens and caches {needs.caches / GB:.2f}"
        rows.append((f"memory, {name}", f"{needs.total / GB:.2f} GB: {parts}, work space {needs.work / GB:.2f}"))
    if found.shape is not None:
        rows.append(("a token's keys", f"{cache_bytes_per_token(found.shape, 2) / 1e3:.0f} kB in bfloat16"))
    seen = [f"{each.date} {each.what} ({each.where})" if each.where else f"{each.date} {each.what}"
            for each in found.verified]  # fmt: skip
    rows.append(("verified here", "\n".join(seen) or "nothing of these weights"))
    rows += [("verified of the family", f"{each.date} {each.what} ({each.where})") for each in found.family_verified]
    return rows


def plan_table(found: Description, context: int) -> Table:
    """How the model is divided among GPUs."""
    from rich.table import Table

    plans = [plan_shards(_shape(found), n) for n in NUMBERS_OF_GPUS]
    notes = [f"{plan.num_gpus} GPUs: {note}" for plan in plans for note in plan.notes]
    table = Table(title="GB on each GPU", title_justify="left", caption="\n".join(notes) or None)
    headings = ("GPUs", *_SHORT, "keys, values", "heads", "key heads", "sums", "whole on each")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "whole on each")
    for plan in plans:
        values = plan_fields(plan, context)
        sizes = [f"{size / GB:.2f}" for size in values["weight_bytes"].values()]
        table.add_row(
            str(plan.num_gpus), *sizes, f"{values['cache_bytes'] / GB:.2f}", str(values["heads"]),
            str(values["kv_heads"]), str(plan.sums_per_forward), _kinds(plan),
        )  # fmt: skip
    return table


def _kinds(plan: ShardPlan) -> str:
    """Tensors that every GPU holds whole, by kind instead of by layer."""
    if plan.num_gpus == 1:
        return "all"
    kinds = dict.fromkeys(".".join(p for p in name.split(".") if not p.isdigit()) for name in plan.replicated)
    return ", ".join(kind.removeprefix("layers.").removesuffix(".weight") for kind in kinds)
