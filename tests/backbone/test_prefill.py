"""Hidden states are those of transformers' own forward pass, whatever they were batched with."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from pipeline.backbone import packed, prefill
from pipeline.backbone.batch import common_prefix_length, plain_batch
from pipeline.backbone.catalogue import BackboneSource, find_backbone
from pipeline.backbone.load import Backbone, load_backbone
from pipeline.backbone.plan import plan_batches, plan_live
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tree import NO_PREFIX
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError


def load(tiny_backbone):
    config = BackboneConfig(backbone=str(tiny_backbone), quantization="none")
    return load_backbone(BackboneSource("tiny", tiny_backbone), config, device="cpu", compute_dtype="float32")


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load(tiny_backbone)


@pytest.fixture(scope="module")
def not_packed(tiny_backbone):
    return load(tiny_backbone)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    shared = rng.integers(0, 600, 9)
    return [np.concatenate([shared, rng.integers(0, 600, n)]).astype(np.int32) for n in (1, 4, 4, 13, 2, 7)]


def alone(folder, ids):
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True).hidden_states


def relative(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


def behind(prefix, rows):
    return [row[len(prefix) :] for row in rows]


@pytest.mark.parametrize("shared", [0, 1, 5, 9])
@pytest.mark.parametrize("budget", [1, 30, 1000])
@pytest.mark.parametrize("share", [True, False])
def test_rows_of_a_batch_behind_a_shared_prefix_equal_each_row_alone(
    backbone, tiny_backbone, rows, shared, budget, share
):
    engine = PrefillEngine(backbone, [0, 1, 2])
    assert engine.shares
    prefix = engine.prefix(rows[0][:shared])
    assert len(prefix) == shared
    seen = []
    for batch in plan_batches(behind(prefix, rows), budget, share=share):
        states = engine.hidden_states(prefix, batch)
        for place, number in enumerate(batch.rows):
            expected = alone(tiny_backbone, rows[number])
            for layer in (0, 1, 2):
                found = states[layer].flatten(0, 1)[batch.places[batch.offsets[place] : batch.offsets[place + 1]]]
                assert relative(found, expected[layer][0, shared:]) < 1e-5
            seen.append(number)
    assert sorted(seen) == list(range(len(rows)))


@pytest.mark.parametrize("shared", [0, 1, 9])
@pytest.mark.parametrize("budget", [1, 30, 1000])
@pytest.mark.parametrize("share", [True, False])
def test_live_passes_and_their_gradients_are_those_of_each_row_alone(
    not_packed, tiny_backbone, rows, shared, budget, share
):
    engine = PrefillEngine(not_packed, [1, 2], pack=False)
    table = not_packed.model.get_input_embeddings().weight.detach().clone()
    leaf, expected_leaf = table.clone().requires_grad_(), table.clone().requires_grad_()
    whole = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32).eval()
    done = []
    for batch in plan_live(rows, shared, budget, share=share):
        assert len(batch.trunk) == (shared if share else 0)
        found = {}
        reads = dict.fromkeys((1, 2), batch.places)
        engine.run_live(batch, found.__setitem__, reads, leaf[torch.from_numpy(batch.flat_ids.astype(np.int64))])
        for place, number in enumerate(batch.rows):
            done.append(number)
            ids = torch.from_numpy(rows[number].astype(np.int64))
            states = whole(inputs_embeds=expected_leaf[ids][None], output_hidden_states=True).hidden_states
            places = torch.from_numpy(batch.places[batch.offsets[place] : batch.offsets[place + 1]])
            for layer in (1, 2):
                behind_trunk = states[layer][0, len(batch.trunk) :]
                assert relative(found[layer].flatten(0, 1)[places], behind_trunk) < 1e-5
            (states[1][0, -1].sin() + states[2][0, -1].sin()).sum().backward()
        ends = torch.from_numpy(batch.places[batch.offsets[1:] - 1])
        sum(found[layer].flatten(0, 1)[ends].sin().sum() for layer in (1, 2)).backward()
    assert sorted(done) == list(range(len(rows)))
    assert expected_leaf.grad.abs().max() > 0.01
    assert relative(leaf.grad, expected_leaf.grad) < 1e-5


@pytest.mark.parametrize("shared", [0, 9])
def test_a_live_pass_has_a_multiple_of_tokens_and_nobody_sees_its_padding(not_packed, rows, shared, monkeypatch):
    engine = PrefillEngine(not_packed, [2], pack=False)
    (batch,) = plan_live(rows, shared, 1000)
    found, seen = {}, []
    handle = engine.blocks[0].mlp.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    for multiple in (1, 7, prefill.LIVE_TOKENS):
        monkeypatch.setattr(prefill, "LIVE_TOKENS", multiple)
        engine.run_live(batch, lambda layer, states, to=multiple: found.update({to: states}), {2: batch.places})
    handle.remove()
    real = shared + batch.tokens
    assert seen == [-(-real // multiple) * multiple for multiple in found]
    assert len(set(seen)) > 1
    for states in found.values():
        assert relative(states.flatten(0, 1)[batch.places], found[1].flatten(0, 1)[batch.places]) < 1e-6


def test_of_the_highest_layer_only_what_is_read_is_computed(not_packed, rows, monkeypatch):
    monkeypatch.setattr(prefill, "LIVE_TOKENS", 1)
    engine = PrefillEngine(not_packed, [1, 2], pack=False)
    (batch,) = plan_live(rows, 9, 1000)
    last = batch.places[batch.offsets[1:] - 1]
    whole, found, seen = {}, {}, []
    block = engine.blocks[1]
    handles = [part.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
               for part in (block.mlp.gate_proj, block.mlp.down_proj)]  # fmt: skip
    engine.run_live(batch, whole.__setitem__, {1: batch.places, 2: batch.places})
    engine.run_live(batch, found.__setitem__, {1: last, 2: last})
    engine.run_live(batch, {}.__setitem__, {1: last})
    for handle in handles:
        handle.remove()
    assert seen[:2] == [batch.tokens] * 2  # the trunk is not read
    assert seen[2:] == [len(rows)] * 2  # and with layer 1 alone the second block is not even begun
    assert torch.equal(found[1], whole[1])
    assert (
        relative(found[2].flatten(0, 1)[torch.from_numpy(last)], whole[2].flatten(0, 1)[torch.from_numpy(last)]) < 1e-5
    )
    assert "forward" not in vars(block.mlp)


def test_a_wrong_prefix_would_be_noticed(backbone, tiny_backbone, rows):
    engine = PrefillEngine(backbone, [2])
    other = rows[0][:5].copy()
    other[2] = (other[2] + 1) % 600
    found = engine.hidden_states(engine.prefix(other), plain_batch([rows[3][5:]]))[2][0]
    assert relative(found, alone(tiny_backbone, rows[3])[2][0, 5:]) > 1e-3


def test_the_last_layer_is_after_the_final_norm(backbone, rows):
    engine = PrefillEngine(backbone, [2])
    with torch.inference_mode():
        ids = torch.tensor(rows[3][None].astype(np.int64))
        expected = backbone.model(ids, use_cache=False).last_hidden_state
    assert torch.allclose(engine.hidden_states(NO_PREFIX, plain_batch([rows[3]]))[2], expected, atol=1e-6)


def hooks_of(backbone):
    return [(*block._forward_hooks, *block._forward_pre_hooks) for block in backbone.model.layers]


@pytest.mark.parametrize("layers", [[0], [1], [0, 1], [1, 2], [2]])
def test_only_the_wanted_layers_come_out_and_nothing_above_them_is_computed(backbone, rows, layers):
    engine = PrefillEngine(backbone, layers)
    hooks = hooks_of(backbone)
    norms = []
    handle = backbone.model.norm.register_forward_hook(lambda *_: norms.append(1))
    try:
        found = engine.hidden_states(NO_PREFIX, plain_batch(rows[:2]))
    finally:
        handle.remove()
    assert list(found) == layers
    assert len(norms) == (2 in layers)
    assert hooks_of(backbone) == hooks


def test_a_bidirectional_encoder_is_refused():
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    encoder = Backbone("bert", BertModel(config).eval(), torch.device("cpu"), torch.float32, 2, 16, "")
    with pytest.raises(BackboneError, match="depend on the padding"):
        PrefillEngine(encoder, [2])


def test_a_bidirectional_encoder_with_a_window_is_refused_too():
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        local_attention=8, global_attn_every_n_layers=2, pad_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = Backbone("modern", ModernBertModel(config).eval(), torch.device("cpu"), torch.float32, 2, 32, "")
    with pytest.raises(BackboneError, match="depend on the padding"):
        PrefillEngine(encoder, [2], pack=False)


@pytest.mark.parametrize("fused", ["then", "times"])
def test_packed_weights_that_give_other_numbers_are_refused(tiny_backbone, monkeypatch, fused):
    config = BackboneConfig(backbone=str(tiny_backbone), quantization="none")
    loaded = load_backbone(BackboneSource("tiny", tiny_backbone), config, device="cpu", compute_dtype="float32")
    right = getattr(packed.PackedLinear, fused)
    monkeypatch.setattr(packed.PackedLinear, fused, lambda self, *inputs: right(self, *inputs) * 1.01)
    monkeypatch.setattr(packed, "agree", lambda *args: True)
    with pytest.raises(BackboneError, match="packed for this CPU"):
        PrefillEngine(loaded, [0, 1, 2])


def test_a_backbone_with_a_window_is_computed_without_sharing(tmp_path):
    from transformers import MistralConfig, MistralModel

    config = MistralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    MistralModel(config).save_pretrained(tmp_path / "windowed")
    source = BackboneSource("windowed", tmp_path / "windowed")
    config = BackboneConfig(backbone="windowed", quantization="none")
    loaded = load_backbone(source, config, device="cpu", compute_dtype="float32")
    engine = PrefillEngine(loaded, [2])
    assert not engine.shares
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 60, n).astype(np.int32) for n in (14, 9)]
    assert not len(engine.prefix(rows[0][:2]))
    states = engine.hidden_states(NO_PREFIX, plain_batch(rows))
    for place, ids in enumerate(rows):
        assert relative(states[2][place, : len(ids)], alone(tmp_path / "windowed", ids)[2][0]) < 1e-5


def test_common_prefix_is_found_on_ids_and_stops_at_the_limit():
    rows = [np.array([1, 2, 3, 4]), np.array([1, 2, 3]), np.array([1, 2, 9, 4])]
    assert common_prefix_length(rows, 10) == 2
    assert common_prefix_length(rows[:2], 10) == 3
    assert common_prefix_length(rows[:1], 10) == 4
    assert common_prefix_length(rows, 1) == 1
    assert common_prefix_length([np.array([5]), np.array([6])], 4) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "rows"), [("nf4", 12), ("int8", 6), ("checkpoint", 6)])
def test_embedded_features_equal_transformers_one_sentence_at_a_time(quantization, rows, tmp_path, sample_dir):
    """The real LLM: stage one's files against an unpadded forward pass of the same weights."""
    from pipeline.backbone.quantize import bitsandbytes_config, dequantize_once
    from pipeline.cache import FeatureCache
    from pipeline.config import CacheConfig, DataConfig, ExtractConfig, PassConfig, TokensConfig
    from pipeline.extract.run import extract
    from pipeline.tasks.spec import COLA

    config = BackboneConfig(quantization=quantization)
    extract(
        ExtractConfig(tasks=("cola",), splits=("test",), layers=("20", "-1"), poolings=("mean", "last")),
        DataConfig(data="sample", sample_dir=sample_dir), config, TokensConfig(), PassConfig(), CacheConfig(tmp_path),
    )  # fmt: skip
    source = find_backbone(config)
    packed = bitsandbytes_config(quantization, torch.float32)
    model = AutoModel.from_pretrained(source.folder, dtype=torch.float32, quantization_config=packed).eval()
    if packed is not None:
        dequantize_once(model, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    views = {
        (layer, pooling): FeatureCache(tmp_path).open("cola", "test", layer=layer, pooling=pooling)
        for layer in (20, 30) for pooling in ("mean", "last")
    }  # fmt: skip
    texts = views[20, "mean"].texts
    before = COLA.prompt.index("{}")
    for row in np.random.default_rng(0).choice(len(texts), rows, replace=False):
        encoded = tokenizer(COLA.prompt.format(texts[row]), return_offsets_mapping=True, return_tensors="pt")
        own = [i for i, (_, right) in enumerate(encoded.pop("offset_mapping")[0].tolist()) if right > before]
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True, use_cache=False).hidden_states
        for (layer, pooling), features in views.items():
            expected = states[layer][0, own].mean(0) if pooling == "mean" else states[layer][0, -1]
            found = torch.from_numpy(np.array(features.X[row]))
            assert relative(found, expected) < 1e-4, (layer, pooling, row)
