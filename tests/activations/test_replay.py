import copy

import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.activations.replay import coded_positions, distinct, length_batches, replay
from diffharness.errors import RunError

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LENGTHS = (5, 3, 9, 9, 2, 7, 4, 1)


def make(config=None, seed: int = 0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config or LlamaConfig(**SMALL)).eval().requires_grad_(False)


def draw(lengths=LENGTHS) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(1, 64, (n,), generator=generator).tolist()) for n in lengths]


@pytest.fixture(scope="module")
def models():
    return make(), make(seed=1)


class Narrow(LayerReader):
    """Its memory holds so many tokens a batch."""

    tokens = 12
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def read_layers(self, ids_BT, **kwargs):
        if ids_BT.numel() > self.tokens:
            raise self.error
        return super().read_layers(ids_BT, **kwargs)


def by_place(batches, layer: int = 1) -> dict[int, torch.Tensor]:
    rows = [(p, b.x[layer][r, : b.lengths[r]]) for b in batches for r, p in enumerate(b.rows)]
    assert len({place for place, _ in rows}) == len(rows)
    return dict(rows)


def check_against_alone(models, sequences, batches) -> None:
    found = by_place(batches)
    assert sorted(found) == list(range(len(sequences)))
    for place, ids in enumerate(sequences):
        for m, model in enumerate(models):
            alone = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
            torch.testing.assert_close(found[place][:, m], alone, rtol=0, atol=1e-5)


def test_every_sequence_comes_back_as_if_every_model_had_read_it_alone(models):
    seen = []
    readers = [LayerReader(model, 1) for model in models]
    batches = list(replay(readers, draw(), max_tokens=20, progress=lambda *done: seen.append(done)))
    check_against_alone(models, draw(), batches)
    assert all(b.ids_BT.numel() <= 20 for b in batches)
    assert [b.ids_BT.shape[1] for b in batches] == sorted((b.ids_BT.shape[1] for b in batches), reverse=True)
    assert seen[-1] == (len(LENGTHS), len(LENGTHS))


def test_a_sequence_that_repeats_is_read_once_and_comes_back_at_each_of_its_places(models):
    read = []
    handle = models[0].register_forward_pre_hook(
        lambda _module, args, kwargs: read.extend((args[0] if args else kwargs["input_ids"]).tolist()), with_kwargs=True
    )
    sequences = [s for s in draw() for _ in range(5)]
    batches = list(replay([LayerReader(model, 1) for model in models], sequences, max_tokens=20))
    handle.remove()
    assert len(read) == len(LENGTHS)
    check_against_alone(models, sequences, batches)
    assert all(b.ids_BT.numel() <= 20 for b in batches)


def test_distinct_keeps_first_appearances_and_tells_where_each_went():
    assert distinct([[1, 2], [3], [1, 2], (3,), [2, 1]]) == ([(1, 2), (3,), (2, 1)], [0, 1, 0, 1, 2])


def test_several_layers_come_from_one_pass_that_stops_after_the_deepest(models):
    model = copy.deepcopy(models[0])
    blocks, runs = decoder_layers(model)[1], []
    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, i=i: runs.append(i))
    for above in (model.model.norm, model.lm_head):
        above.register_forward_pre_hook(lambda *_: pytest.fail("run above the deepest layer"))
    (batch,) = replay([LayerReader(model, [1, 0])], draw())
    assert runs == [0, 1]
    assert sorted(batch.x) == [0, 1]
    for layer in batch.x:
        (single,) = replay([LayerReader(model, layer)], draw())
        assert torch.equal(batch.x[layer], single.x_BTMD)
    with pytest.raises(ValueError, match="unpack"):
        _ = batch.x_BTMD


@pytest.mark.parametrize(
    "error",
    [
        Narrow.error,
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "cublas", "python"],
)
def test_short_memory_halves_the_batches_for_good_and_says_so_once(models, error, monkeypatch):
    monkeypatch.setattr(Narrow, "error", error)
    notes = []
    readers = [LayerReader(models[0], 1), Narrow(models[1], 1)]
    batches = list(replay(readers, draw(), max_tokens=100, note=notes.append))
    check_against_alone(models, draw(), batches)
    assert all(b.ids_BT.numel() <= Narrow.tokens for b in batches)
    assert len(notes) == 1
    assert "half" in notes[0]


def test_memory_that_is_short_inside_a_trace_leaves_the_reader_usable(models):
    def check(_module, args):
        if args[0].shape[0] * args[0].shape[1] > 12:
            torch.empty(1 << 50)  # what no machine has

    handle = decoder_layers(models[0])[1][1].register_forward_pre_hook(check)
    batches = list(replay([LayerReader(models[0], 1)], draw(), max_tokens=100))
    handle.remove()
    check_against_alone(models[:1], draw(), batches)


def test_a_sequence_that_does_not_fit_alone_is_named_by_its_length(models):
    with pytest.raises(RunError, match=r"one sequence of 13 tokens.*max_length"):
        list(replay([Narrow(models[0], 1)], draw((13, 4))))


def test_another_error_is_not_taken_for_short_memory(models, monkeypatch):
    monkeypatch.setattr(Narrow, "error", RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        list(replay([Narrow(models[0], 1)], draw()))


def test_an_empty_sequence_is_refused_by_its_place(models):
    with pytest.raises(RunError, match="sequence 1"):
        list(replay([LayerReader(models[0], 1)], [(4, 5), ()]))


def test_coded_positions_leave_out_the_first_the_padding_and_special_ids():
    ids_BT = torch.tensor([[1, 5, 2, 6], [5, 5, 0, 0]])
    assert coded_positions(ids_BT, [4, 2]).tolist() == [[False, True, True, True], [False, True, False, False]]
    assert coded_positions(ids_BT, [4, 2], {2, 6}).tolist() == [
        [False, True, False, False],
        [False, True, False, False],
    ]


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.bfloat16, torch.float16), torch.float32),
    ],
)
def test_models_of_differing_dtype_meet_in_one_that_holds_both(models, dtypes, common):
    pair = [copy.deepcopy(model).to(dtype) for model, dtype in zip(models, dtypes, strict=True)]
    (batch,) = replay([LayerReader(model, 1) for model in pair], draw())
    assert batch.x_BTMD.dtype == common
    for m, model in enumerate(pair):
        assert torch.equal(batch.x_BTMD[:, :, m], LayerReader(model, 1).read(batch.ids_BT).to(common))


def test_a_model_whose_weights_are_offloaded_is_read_where_it_computes(models):
    offloaded = cpu_offload(copy.deepcopy(models[1]), execution_device=torch.device("cpu"))
    assert next(offloaded.parameters()).device.type == "meta"
    batches = list(replay([LayerReader(offloaded, 1), LayerReader(models[1], 1)], draw()))
    check_against_alone((models[1], models[1]), draw(), batches)


def test_lengths_that_change_the_rotary_embeddings_of_a_batch_are_not_read_together():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    limits = {"max_position_embeddings": 32, "original_max_position_embeddings": 4}
    model = make(Phi3Config(**SMALL, **limits, rope_parameters={**rope, "original_max_position_embeddings": 4}), seed=2)
    model.model.layers[0].self_attn.qkv_proj.weight *= 20
    sequences = draw()
    check_against_alone((model,), sequences, list(replay([LayerReader(model, 1)], sequences)))
    together = LayerReader(model, 1).read(torch.tensor([[*sequences[1], 0, 0]]))[:, :3]
    assert not torch.allclose(together, LayerReader(model, 1).read(torch.tensor([sequences[1]])), atol=1e-4)


def test_batches_keep_to_the_budget_and_to_borders():
    lengths = [3, 9, 9, 1, 4, 20]
    batches = length_batches(lengths, 18, borders=[3])
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 18
        assert len({lengths[i] <= 3 for i in batch}) == 1
