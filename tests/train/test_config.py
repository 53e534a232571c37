"""Recipes, `--set`, and the configuration on disk."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import ConfigError
from train.config import OBJECTIVES, AdaptConfig, DataConfig, NoiseConfig, TrainConfig
from train.recipes import RECIPES, get_recipe, on_cpu, plan
from train.settings import apply_settings, field_paths, flatten, from_json, list_differences, to_json

NAMES = [recipe.__name__ for recipe in RECIPES]


def test_the_recipes_of_the_paper_and_of_the_adaptation_are_there() -> None:
    assert set(NAMES) == {
        "tiny_cpu", "mask_stage", "edit_stage", "order_distill", "on_policy", "adapt_gated", "adapt_draft_head",
        "adapt_block_causal", "from_scratch", "tune_edits",
    }  # fmt: skip
    for name in NAMES:
        config = get_recipe(name)
        assert config.recipe == name
        assert from_json(TrainConfig, json.loads(json.dumps(to_json(config)))) == config
        assert from_json(TrainConfig, to_json(on_cpu(config))) == on_cpu(config)


@pytest.mark.parametrize("name", ["tiny_cpu", "from_scratch"])
def test_the_whole_recipe_has_four_stages_in_the_papers_order(name: str) -> None:
    stages = plan(name)
    assert [stage.name for stage in stages] == ["mask_stage", "edit_stage", "order_distill", "on_policy"]
    assert [stage.config.objective for stage in stages] == list(OBJECTIVES[:4])
    assert sum(stage.time_share for stage in stages) == pytest.approx(1)
    mask, edit = (stage.config.budget.steps for stage in stages[:2])
    assert mask / (mask + edit) == pytest.approx(0.8)  # paper 3.1


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe adapt.*adapt_gated"):
        plan("adapt")


def test_settings_change_single_fields_and_nothing_else() -> None:
    config = get_recipe("adapt_gated")
    changed = apply_settings(
        config,
        ["optim.learning_rate=2e-3", "adapt.taps=1, 5,9", "data.mixture.infill_line=2", "optim.master_weights=no",
         "model.base=a=b", "data.mixture.edit_commit=0.5", "order.temperatures=0.1,1"],
    )  # fmt: skip
    assert changed.optim.learning_rate == 2e-3 and changed.adapt.taps == (1, 5, 9)
    assert changed.data.mixture == {"infill_line": 2.0, "edit_commit": 0.5}
    assert changed.optim.master_weights is False and changed.model.base == "a=b"
    assert len(list_differences(to_json(config), changed)) == 7
    whole = apply_settings(config, ["data.mixture=document:1,infill_span:3"])
    assert whole.data.mixture == {"document": 1.0, "infill_span": 3.0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.learning_rte=1", r"no field optim\.learning_rte; the nearest is optim\.learning_rate"),
        ("learning_rate=1", r"no field learning_rate; the nearest is optim\.learning_rate"),
        ("otpim.clip_norm=1", r"nearest is optim\.clip_norm"),
        ("budget.step=3", r"nearest is budget\.steps"),
        ("seed.x=1", r"no field seed\.x; the nearest is seed"),
        ("optim=1", r"optim is a group of fields; set one of optim\.learning_rate"),
        ("optim.accumulation=2.5", r"optim\.accumulation is a whole number, and '2\.5' is not"),
        ("optim.learning_rate=fast", r"optim\.learning_rate is a number, and 'fast' is not"),
        ("optim.learning_rate=nan", r"optim\.learning_rate is a finite number"),
        ("optim.master_weights=perhaps", r"optim\.master_weights is true or false"),
        ("adapt.taps=1,b", r"adapt\.taps is a whole number, and 'b' is not"),
        ("data.mixture=infill_line", r"data\.mixture is a list of NAME:VALUE"),
        ("optim.learning_rate", r"FIELD=VALUE expected"),
        ("optim.learning_rate=0", r"optim\.learning_rate is 0\.0: above 0"),
        ("noise.schedule=cubic", r"noise\.schedule is 'cubic': one of linear, cosine"),
        ("objective=guess", r"objective is 'guess': one of mask_stage"),
        ("model.shape.num_kv_heads=5", r"num_heads 12 is not a multiple of num_kv_heads 5"),
        ("data.mixture.infill_line=-1", r"data\.mixture\.infill_line is -1\.0: at least 0"),
    ],
)
def test_a_wrong_setting_says_what_to_change(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_settings(get_recipe("mask_stage"), [setting])


@given(st.data())
def test_every_field_can_be_set_from_its_own_text(data: st.DataObject) -> None:
    """Any field's present value, written as text and set again, changes nothing."""
    config = get_recipe(data.draw(st.sampled_from(NAMES)))
    path = data.draw(st.sampled_from(sorted(field_paths(config))))
    record: object = config
    for part in path.split("."):
        record = getattr(record, part)
    if isinstance(record, dict):
        text = ",".join(f"{name}:{value!r}" for name, value in record.items())
    else:
        text = ",".join(map(str, record)) if isinstance(record, tuple) else str(record)
    assert apply_settings(config, [f"{path}={text}"]) == config


@given(rate=st.floats(1e-9, 1e3), taps=st.lists(st.integers(0, 99), max_size=5), mix=st.dictionaries(
    st.text("abc_", min_size=1), st.floats(0.1, 9), max_size=3))  # fmt: skip
def test_json_gives_back_what_was_written(rate: float, taps: list[int], mix: dict[str, float]) -> None:
    config = get_recipe("adapt_draft_head")
    config = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=rate),
        adapt=dataclasses.replace(config.adapt, taps=tuple(taps)),
        data=dataclasses.replace(config.data, mixture=mix),
    )
    assert from_json(TrainConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipee": "x"}, r"no field config\.recipee; the nearest is config\.recipe"),
        ({"seed": "7"}, r"config\.seed is a whole number, and '7' is not"),
        ({"seed": True}, r"config\.seed is a whole number"),
        ({"optim": {"lr": 1}}, r"no field config\.optim\.lr"),
        ({"optim": 3}, r"config\.optim is a group of fields"),
    ],
)
def test_a_damaged_configuration_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(TrainConfig, to_json(get_recipe("mask_stage")) | change)


def test_a_missing_field_is_named() -> None:
    values = to_json(get_recipe("mask_stage"))
    del values["objective"]
    with pytest.raises(ConfigError, match="objective"):
        from_json(TrainConfig, values)


def test_differences_are_listed_by_field() -> None:
    old = to_json(get_recipe("mask_stage"))
    new = apply_settings(get_recipe("mask_stage"), ["seed=5", "data.layouts=suffix_first", "checkpoint.every_steps=9"])
    assert list_differences(old, new, ("checkpoint.",)) == ["data.layouts: [] -> ['suffix_first']", "seed: 0 -> 5"]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (NoiseConfig, {"block_min": 9, "block_max": 8}, "block_min 9"),
        (NoiseConfig, {"min_time": 0.0}, "min_time"),
        (AdaptConfig, {"distill_weight": 1.5}, "between 0 and 1"),
        (DataConfig, {"mixture": {"a": 0.0}}, "every weight is 0"),
    ],
)
def test_records_refuse_what_cannot_be(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_recipes_and_command_registration_need_no_torch() -> None:
    code = (
        "import sys, typer, train.commands; train.commands.register(typer.Typer());"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_configuration_of_another_version_counts_by_its_defaults() -> None:
    config = apply_settings(get_recipe("mask_stage"), ["noise.edit_rate=0.05"])
    older = to_json(config)
    del older["noise"]["edit_weight"]  # at its default now
    older["noise"]["gone"] = 3
    assert list_differences(older, config) == []
    del older["noise"]["edit_rate"]
    assert list_differences(older, config) == ["noise.edit_rate: 0.1 -> 0.05"]


def test_flatten_names_every_leaf() -> None:
    config = get_recipe("mask_stage")
    assert set(flatten(config)) == set(field_paths(config))
