"""The rule: the next token is a function of the prefix alone, in every way of generating."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from neurallib.modeling_neurallib import call as module
from neurallib.modeling_neurallib.call import Call, CallLayer, Row
from neurallib.modeling_neurallib.characters import CharacterTable, TokenizerError
from neurallib.modeling_neurallib.modeling_neurallib import CACHE, NeuralLibError
from neurallib.modeling_neurallib.writer import END, GO_ON, LEADS
from transformers import DynamicCache, LlamaForCausalLM

from neurallib import NeuralLibForCausalLM

LENGTH = 20


def often_open(model: NeuralLibForCausalLM, shift: float) -> NeuralLibForCausalLM:
    """The gate of an untrained model, opened at about every third position; its readings are arbitrary but real."""
    computer = model.computer
    torch.manual_seed(13)
    for weight in (computer.selector.no_call.weight, computer.reader.scores.weight, computer.writer.end.weight):
        weight.data.normal_(std=1.0)
    for vector in (computer.selector.covered, computer.reader.covered):
        vector.data.normal_(std=3.0)
    computer.selector.no_call.bias.data.fill_(shift)
    return model


@pytest.fixture
def calling(tiny_model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    return often_open(tiny_model, 0.0)


@pytest.fixture
def prompt(tiny_tokenizer: Any) -> torch.Tensor:
    return tiny_tokenizer("What is 123 times 45? Sort 52 7 913 4, please.", return_tensors="pt").input_ids


def uncached(model: NeuralLibForCausalLM, tokens: torch.Tensor, length: int = LENGTH) -> list[int]:
    """Greedy decoding that feeds the whole prefix at every step and keeps nothing: the definition of the others."""
    tokens = tokens.clone()
    for _ in range(length):
        logits = model(tokens, use_cache=False).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
        if int(tokens[0, -1]) == model.generation_config.eos_token_id:
            break
    return tokens[0].tolist()


def greedy(model: NeuralLibForCausalLM, tokens: torch.Tensor, **kwargs: Any) -> Any:
    return model.generate(tokens, max_new_tokens=LENGTH, do_sample=False, **kwargs)


def test_calls_are_made(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    output = greedy(calling, prompt, return_dict_in_generate=True)
    made = [call for call in output.calls[0] if call.result]
    assert made, "the rule is tested on nothing unless calls with results are made"
    written = output.sequences[0].tolist()
    for call in made:
        assert tuple(written[call.start : call.start + len(call.tokens)]) == call.tokens[: len(written) - call.start]


def test_what_was_just_said_is_not_said_again(
    tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that is always open and a writer that always goes on: the same call right after its result ends the turn instead."""
    model = often_open(tiny_model, -50.0)
    model.allow_only(programs=["add"])
    model.computer.writer.end.weight.data.zero_()
    model.computer.writer.end.bias.data = torch.tensor([-50.0, 50.0])
    read = [("12", "30")]
    monkeypatch.setattr(type(model.computer), "read", lambda *given: SimpleNamespace(arguments=list(read[-1]), tokens=()))
    output = greedy(model, prompt, return_dict_in_generate=True)
    (call,) = output.calls[0]
    assert call.result == "42" and call.ends_turn
    written = output.sequences[0, prompt.shape[1] :].tolist()
    assert written == [*call.tokens, model.config.end_of_turn_token_id]
    assert uncached(model, prompt) == output.sequences[0].tolist()
    # Other arguments are another call, and what departed from its result was not said.
    row = Row(list(range(3)), [Call(3, "add", "", ("12", "30"), result="42", tokens=(7, 8))])
    again = Call(5, "add", "", ("12", "30"))
    row.tokens += [7, 8]
    assert row.repeats(again) and not row.repeats(Call(5, "add", "", ("12", "31")))
    row.tokens[-1] = 9
    assert not row.repeats(again)
    assert not Row([1]).repeats(again)


MODES: dict[str, dict[str, Any]] = {
    "dynamic cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "chunked prefill": {"prefill_chunk_size": 5},
}


def test_a_static_cache_hides_its_unwritten_places(tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    """Nothing is called; a second run finds the places that the first one wrote, and may not look at them either."""
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    settings |= {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}
    expected = tiny_model.generate(prompt, **settings)
    assert expected.calls == ((),)
    for _ in range(2):
        found = tiny_model.generate(prompt, cache_implementation="static", **settings)
        torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-5)
        tiny_model.generate(prompt.flip(1), cache_implementation="static", **settings)


@pytest.mark.parametrize("mode", MODES, ids=lambda name: name.replace(" ", "_"))
def test_equals_the_uncached_run(calling: NeuralLibForCausalLM, prompt: torch.Tensor, mode: str) -> None:
    found, expected = greedy(calling, prompt, **MODES[mode])[0].tolist(), uncached(calling, prompt)
    assert found[: len(expected)] == expected
    # Transformers 5.10 writes a token too many when it guesses ahead, whatever the model.
    assert len(found) - len(expected) in ((0, 1) if mode == "prompt lookup" else (0,))


def test_left_padded_batch(calling: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    texts = ["Add 12 and 30", "What is 7 times 8? And what is the reverse of strawberry?", "5"]
    batch = tiny_tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    output = calling.generate(**batch, max_new_tokens=LENGTH, do_sample=False, return_dict_in_generate=True)
    width = batch.input_ids.shape[1]
    for row, text in enumerate(texts):
        single = tiny_tokenizer(text, return_tensors="pt").input_ids
        expected = uncached(calling, single)[single.shape[1] :]
        assert output.sequences[row, width:].tolist()[: len(expected)] == expected
        alone = greedy(calling, single, return_dict_in_generate=True)
        assert output.calls[row] == alone.calls[0], "nothing is called behind the end of a sequence"


def test_beams_are_scored_without_a_cache_alike(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    settings = {"num_beams": 3, "max_new_tokens": 12, "do_sample": False}
    assert (
        calling.generate(prompt, **settings).tolist() == calling.generate(prompt, use_cache=False, **settings).tolist()
    )


def test_sampling_is_the_same_with_and_without_cache(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        drawn.append(
            calling.generate(prompt, do_sample=True, num_return_sequences=3, max_new_tokens=12, use_cache=use_cache)
        )
    assert drawn[0].tolist() == drawn[1].tolist()


def test_a_cache_is_used_again_in_the_next_turn(
    calling: NeuralLibForCausalLM, prompt: torch.Tensor, tiny_tokenizer: Any
) -> None:
    cache = DynamicCache()
    first = calling.generate(prompt, **{CACHE: cache}, max_new_tokens=6, do_sample=False)
    more = tiny_tokenizer(" And 4 plus 5?", return_tensors="pt").input_ids
    both = torch.cat([first, more], dim=1)
    second = calling.generate(both, **{CACHE: cache}, max_new_tokens=8, do_sample=False)
    assert second[0].tolist() == uncached(calling, both, 8)


def test_logits_of_every_position_equal_those_of_the_prefix(
    calling: NeuralLibForCausalLM, prompt: torch.Tensor
) -> None:
    tokens = greedy(calling, prompt)
    whole = calling(tokens, use_cache=False).logits[0]
    for length in range(prompt.shape[1], tokens.shape[1] + 1):
        torch.testing.assert_close(calling(tokens[:, :length]).logits[0, -1], whole[length - 1], atol=1e-4, rtol=1e-4)


def test_without_a_call_logits_are_the_backbones_to_the_bit(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor
) -> None:
    ours = tiny_model(prompt)
    assert ours.calls == ((),)
    assert torch.equal(ours.logits, tiny_base(prompt).logits)
    assert greedy(tiny_model, prompt).tolist() == greedy(tiny_base, prompt).tolist()


def test_bfloat16_backbone_keeps_the_computer_in_float32(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    half = calling.to(torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in half.computer.parameters())
    assert greedy(half, prompt).shape[1] > prompt.shape[1]


def test_forced_tokens_survive_an_ngram_ban_without_nan(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    output = greedy(calling, prompt, no_repeat_ngram_size=2, return_dict_in_generate=True, output_scores=True)
    assert not any(torch.isnan(score).any() for score in output.scores)


def test_embeddings_are_refused(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    with pytest.raises(NeuralLibError, match="input_ids"):
        calling(inputs_embeds=calling.get_input_embeddings()(prompt))


def test_a_cache_filled_elsewhere_is_refused(
    calling: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor
) -> None:
    cache = DynamicCache()
    tiny_base(prompt, **{CACHE: cache})
    with pytest.raises(NeuralLibError, match="the computer has read 0"):
        calling(prompt[:, -1:], **{CACHE: cache})


def test_a_call_may_follow_another_at_once(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    computer = calling.computer
    computer.selector.no_call.bias.data.fill_(-50.0)
    computer.writer.end.bias.data[GO_ON] += 50.0
    computer.writer.lead.bias.data[LEADS.index("\n")] += 50.0
    calling.config.disabled_programs = [name for name in computer.programs if name != "count"]
    output = greedy(calling, prompt, return_dict_in_generate=True)
    made = output.calls[0]
    assert len(made) > 2
    for one, other in pairwise(made):
        assert other.start == one.start + len(one.tokens)
    characters = computer.table.characters(output.sequences[0].tolist())
    reply = characters.text(int(np.searchsorted(characters.tokens, made[0].start)))
    assert "".join("\n" + str(call.result) for call in made).startswith(reply)
    assert output.sequences[0].tolist() == uncached(calling, prompt)


@pytest.mark.parametrize("layers", [[0, 1], [1, 2], [2]])
def test_noted_states_are_the_hidden_states(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tiny_library: Any, prompt: torch.Tensor, layers: list[int]
) -> None:
    model = NeuralLibForCausalLM.from_llama(
        tiny_base, tiny_library, tokenizer=tiny_tokenizer, heads={"feature_layers": layers}
    )
    seen = []
    model.computer.projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    states = model(prompt, output_hidden_states=True).hidden_states
    model(prompt)
    for features in seen:
        assert torch.equal(features, model.model.features(states))
    assert len(seen) == 2 and model.config.num_hidden_layers == 2


def test_a_fault_does_not_end_the_generation(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    calling.config.machine = {**calling.config.machine, "max_steps": 1}
    output = greedy(calling, prompt, return_dict_in_generate=True)
    faults = [call.fault for call in output.calls[0]]
    assert output.sequences.shape[1] > prompt.shape[1]
    assert faults and all(faults) and "out_of_steps" in faults


def test_calls_are_bounded(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    calling.config.max_calls = 2
    output = greedy(calling, prompt, return_dict_in_generate=True)
    assert len(calling.calls_of(output.sequences, output.get(CACHE))[0]) == 2


def test_disabled_programs_are_never_called(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    calls = greedy(calling, prompt, return_dict_in_generate=True).calls[0]
    first = calls[0].program
    calling.config.disabled_programs = [first]
    assert first not in {call.program for call in greedy(calling, prompt, return_dict_in_generate=True).calls[0]}


def test_rows_forget_what_is_taken_back() -> None:
    call = Call(start=2, program="p", library="l", arguments=("1",), probability=1.0, result="42", tokens=(7, 8))
    row = Row([5, 6, 7, 8, 9], [call])
    assert row.following() == (call, 3)
    row.drop(2)
    assert row.following() == (call, 1)
    row.tokens.append(1)
    assert row.following() is None, "the text has departed from the result"
    row.drop(2)
    assert row.calls == [call], "it was decided at the last token that remains"
    row.drop(1)
    assert row.calls == []


def test_a_layer_is_cropped_by_a_number_or_to_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def cropped(number: int) -> int:
        layer = CallLayer()
        layer.extend(torch.zeros(2, 5, 3), torch.zeros(2, 5, 4), torch.ones(2, 5).bool(), torch.zeros(2, 5))
        for row in layer.rows:
            row.tokens += [1, 2, 3, 4, 5]
        layer.crop(number)
        assert all(len(row.tokens) == layer.length == layer.mask.shape[1] for row in layer.rows)
        return layer.length

    assert [cropped(number) for number in (-2, -9)] == [3, 0]
    monkeypatch.setattr(module, "CROPS_TO_A_LENGTH", False)
    assert cropped(0) == 5
    with pytest.raises(ValueError, match="negative"):
        CallLayer().crop(3)
    monkeypatch.setattr(module, "CROPS_TO_A_LENGTH", True)
    assert [cropped(number) for number in (-2, 0, 3, 5, 8)] == [3, 0, 3, 5, 5]


@pytest.mark.parametrize("seed", range(12))
def test_what_waits_to_be_read_is_what_was_read_at_once(seed: int) -> None:
    """Whatever is cropped and reordered between, a layer that settles now and then has the states of one that never waits."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    project = torch.nn.Linear(6, 3).double()
    waits, never = CallLayer(), CallLayer()
    for _ in range(12):
        kind = draw.choice(["extend", "extend", "extend", "crop", "select", "settle"])
        if kind == "extend":
            count = draw.randint(1, 4)
            rows = len(waits.rows) or 2
            new = torch.randn(rows, count, 6).double()
            for layer in (waits, never):
                layer.extend(new, torch.zeros(rows, count, 4), torch.ones(rows, count).bool(), torch.zeros(rows, count))
                for row in layer.rows:
                    row.tokens += [7] * count
        elif kind == "settle" and waits.length:
            waits.settle(project)
        elif waits.length > 1:
            number, order = -draw.randint(1, waits.length - 1), torch.randint(0, len(waits.rows), (3,))
            for layer in (waits, never):
                layer.crop(number) if kind == "crop" else layer.reorder_cache(order)
        if never.length:
            never.settle(project)
            assert not never.waiting
    assert waits.waiting <= waits.length
    if waits.length:
        torch.testing.assert_close(waits.settle(project), never.settle(project))
        assert waits.settle(project).shape == (len(waits.rows), waits.length, 3) and not waits.waiting
    with pytest.raises(RuntimeError, match="nothing has been read yet"):
        CallLayer().settle(project)


def test_only_so_many_positions_wait(tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    tiny_model.computer.selector.no_call.bias.data.fill_(50.0)  # nothing is ever read
    cache = tiny_model(prompt, use_cache=True).past_key_values
    (layer,) = (layer for layer in cache.layers if isinstance(layer, CallLayer))
    seen = []
    for token in range(module.UNREAD + 8):
        tiny_model(torch.full((len(prompt), 1), 1 + token % 5), past_key_values=cache, use_cache=True)
        seen.append(layer.waiting)
    assert max(seen) == module.UNREAD and 0 in seen


def ends_turn(model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    model.computer.writer.end.bias.data[END] = 50.0
    return model


def test_what_a_result_leaves_is_the_backbones_choice(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor
) -> None:
    """A processor may ban the token of a result: then the others are as if nothing had been called."""
    found, expected = opened(tiny_model)(prompt).logits[0, -1], tiny_base(prompt).logits[0, -1]
    others = torch.ones_like(found, dtype=torch.bool)
    others[found.argmax()] = False
    assert torch.equal(found[others], expected[others]) and found.max() > expected.max() + 5_000
    first = int(found.argmax())
    for ban in ({"suppress_tokens": [first]}, {"bad_words_ids": [[first]]}):
        output = tiny_model.generate(prompt, max_new_tokens=1, do_sample=False, **ban)
        assert int(output[0, -1]) == int(expected.masked_fill(~others, -torch.inf).argmax())


def test_where_the_end_of_a_turn_is_banned_a_result_is_not_extended(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor
) -> None:
    model = ends_turn(opened(tiny_model))
    length = greedy(model, prompt).shape[1] - prompt.shape[1]
    longer = model.generate(prompt, max_new_tokens=length, min_new_tokens=length, do_sample=False)
    logits = tiny_base(longer[:, :-1]).logits[0, -1]
    logits[torch.from_numpy(model.computer.table.extending)] = -torch.inf
    logits[model.config.end_of_turn_token_id] = -torch.inf
    assert int(longer[0, -1]) == int(logits.argmax())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_the_heads_are_float32(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor, dtype: torch.dtype
) -> None:
    seen = []
    tiny_model.computer.selector.query.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        assert greedy(tiny_model, prompt).tolist() == greedy(tiny_base, prompt).tolist()
        assert greedy(opened(tiny_model), prompt, return_dict_in_generate=True).calls[0]
    assert {*seen} == {torch.float32}


@pytest.mark.parametrize("size", [408, 396])
def test_a_vocabulary_may_be_resized(
    tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor, tmp_path: Path, size: int
) -> None:
    model = opened(tiny_model)
    model.resize_token_embeddings(size, mean_resizing=False)
    tokens = torch.cat([prompt, torch.tensor([[size - 1]])], dim=1)
    assert model(tokens).logits.shape[-1] == size
    output = greedy(model, tokens, return_dict_in_generate=True)
    assert output.calls[0]
    model.save_pretrained(tmp_path)
    again = NeuralLibForCausalLM.from_pretrained(tmp_path)
    assert greedy(again, tokens).tolist() == output.sequences.tolist()


def test_the_computer_may_be_left_out(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, prompt: torch.Tensor
) -> None:
    model = opened(tiny_model)
    embedded, expected = model.get_input_embeddings()(prompt), tiny_base(prompt).logits
    for given in ({"input_ids": prompt}, {"inputs_embeds": embedded}):
        output = model(**given, decide_calls=False)
        assert torch.equal(output.logits, expected) and output.calls is None
    output = greedy(model, prompt, decide_calls=False, return_dict_in_generate=True)
    assert output.calls == ((),) and torch.equal(output.sequences, greedy(tiny_base, prompt))
    with model.disable_library():
        assert torch.equal(model(inputs_embeds=embedded).logits, expected)
        found = model.generate(inputs_embeds=embedded, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    assert found.calls == ((),)
    assert torch.equal(found.sequences, greedy(tiny_base, prompt)[:, prompt.shape[1] :][:, :4])


def test_a_fault_leaves_the_result_before_it_alone(tiny_model: NeuralLibForCausalLM) -> None:
    computer = tiny_model.computer
    result = Call(3, "add", "", ("1", "2"), result="42", tokens=(7, 8))
    fault = Call(5, "add", "", ("", ""), fault="argument 1 of add was not found in the text")
    for calls in ([result], [result, fault]):
        token, forbidden = computer.write(Row([1, 2, 3, 7, 8], calls))
        assert token is None and forbidden is computer.table.extending


@pytest.mark.parametrize(
    "tokens", [{"pad_token_id": 9}, {"eos_token_id": 9}, {"eos_token_id": [5, 9]}, {"end_of_turn_token_id": 9}]
)
def test_nothing_is_called_behind_an_end(
    tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor, tokens: dict[str, Any]
) -> None:
    model = opened(tiny_model)
    model.allow_only(programs=["count"])
    request = torch.cat([prompt, torch.tensor([[9]])], dim=1)
    assert model(request).calls[0][-1].start == request.shape[1]
    for name in ("pad_token_id", "eos_token_id", "end_of_turn_token_id"):
        setattr(model.config, name, tokens.get(name))
    assert model(request).calls[0][-1].start < request.shape[1]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("padding", ["config", "generation", "call"])
def test_the_calls_of_a_batch_are_those_of_its_replies(
    calling: NeuralLibForCausalLM, tiny_tokenizer: Any, use_cache: bool, padding: str
) -> None:
    texts = ["Add 12 and 30", "What is 7 times 8? And what is the reverse of strawberry?"]
    pad = tiny_tokenizer.pad_token_id
    calling.config.pad_token_id = pad if padding == "config" else None
    calling.generation_config.pad_token_id = pad if padding == "generation" else None
    batch = tiny_tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    how: dict[str, Any] = {"pad_token_id": pad} if padding == "call" else {}
    how |= {"attention_mask": batch.attention_mask, "use_cache": use_cache, "return_dict_in_generate": True}
    output = greedy(calling, batch.input_ids, **how)
    for text, found in zip(texts, output.calls, strict=True):
        single = tiny_tokenizer(text, return_tensors="pt").input_ids
        whole = greedy(calling, single)
        made = calling(whole[:, :-1], use_cache=False).calls[0]
        assert found == tuple(call for call in made if call.start >= single.shape[1])
    assert any(output.calls)


def test_what_ended_a_row_may_be_padding_in_the_next_turn(calling: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    batch = tiny_tokenizer(["Add 12 and 30", "What is 7 times 8?"], return_tensors="pt", padding=True)
    behind = torch.tensor([[3, 4, 5, 6], [7, 0, 0, 0]])
    new = tiny_tokenizer(" And 4 plus 5?", return_tensors="pt").input_ids.expand(2, -1)
    tokens = torch.cat([batch.input_ids, behind, new], dim=1)
    mask = torch.cat([batch.attention_mask, (behind > 0).long(), torch.ones_like(new)], dim=1)
    seen = tokens.shape[1] - new.shape[1]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    read = torch.cat([batch.attention_mask, torch.ones_like(behind)], dim=1)
    cache = calling(tokens[:, :seen], attention_mask=read, use_cache=True).past_key_values
    found = calling(new, attention_mask=mask, position_ids=places[:, seen:], past_key_values=cache)
    expected = calling(tokens, attention_mask=mask, position_ids=places, use_cache=False)
    assert found.calls == expected.calls
    with pytest.raises(NeuralLibError, match="shows tokens of the cache that were padding"):
        calling(new, attention_mask=torch.ones(2, seen + 2 * new.shape[1]), past_key_values=cache)


@pytest.mark.parametrize("side", ["left", "right", "within"])
def test_padding_anywhere_is_as_if_it_were_not_there(
    calling: NeuralLibForCausalLM, prompt: torch.Tensor, side: str
) -> None:
    pad = torch.zeros(1, 3, dtype=torch.long)
    expected = calling.computer.weights(prompt, torch.ones_like(prompt).bool())[0]
    at = {"left": 0, "right": prompt.shape[1], "within": int(expected.argmin())}[side]
    assert expected[at % prompt.shape[1]] < 0 or side != "within", "a number goes on behind the padding"
    tokens = torch.cat([prompt[:, :at], pad, prompt[:, at:]], dim=1)
    mask = torch.cat([torch.ones(1, at), pad, torch.ones(1, prompt.shape[1] - at)], dim=1).long()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    assert torch.equal(calling.computer.weights(tokens, mask.bool())[mask.bool()], expected)
    found = calling(tokens, attention_mask=mask, position_ids=places, use_cache=False)
    assert found.calls == calling(prompt, use_cache=False).calls


def test_chosen_positions_may_be_counted_from_the_end(tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    model = opened(tiny_model)
    expected = model(prompt).logits[:, [-1, -3, -1]]
    torch.testing.assert_close(model(prompt, logits_to_keep=torch.tensor([-1, -3, -1])).logits, expected)


@pytest.mark.parametrize("how", ["call", "config"])
def test_outputs_may_be_tuples(tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor, how: str) -> None:
    expected = tiny_model(prompt).logits
    tiny_model.config.return_dict = how == "call"
    given = {"return_dict": False} if how == "call" else {}
    assert torch.equal(tiny_model(prompt, **given)[0], expected)
    assert isinstance(tiny_model.model(prompt, **given), tuple)


def test_a_result_that_cannot_be_spelt_is_a_fault(
    tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(table: CharacterTable, text: str) -> list[int]:
        raise TokenizerError("the vocabulary has no token for the byte 0x00 of a result")

    monkeypatch.setattr(CharacterTable, "cut", cut)
    (call, *_) = greedy(opened(tiny_model), prompt, return_dict_in_generate=True).calls[0]
    assert call.result is None and call.tokens == () and "no token for the byte" in call.fault


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_computed_as_in_the_base(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tiny_library: Any, prompt: torch.Tensor, attention: str
) -> None:
    tiny_base.set_attn_implementation(attention)
    model = NeuralLibForCausalLM.from_llama(tiny_base, tiny_library, tokenizer=tiny_tokenizer)
    assert model.config._attn_implementation == attention
    assert torch.equal(model(prompt).logits, tiny_base(prompt).logits)


def test_what_cannot_be_read_is_refused_in_clear_words(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    cache = calling(prompt, use_cache=True).past_key_values
    with pytest.raises(NeuralLibError, match=f"is of 1 positions, but there are {prompt.shape[1] + 1}"):
        calling(prompt[:, :1], attention_mask=torch.ones(1, 1), past_key_values=cache)
    with pytest.raises(NeuralLibError, match="hold no token"):
        calling(prompt[:, :0])
    with pytest.raises(NeuralLibError, match="left-padded batch"):
        calling.generate_batch(inputs=prompt.tolist())


@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_are_run_as_they_are(tiny_model: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    quantized = quantization.quantize_dynamic(opened(tiny_model), {torch.nn.Linear})
    assert greedy(quantized, prompt, return_dict_in_generate=True).calls[0]


@pytest.mark.parametrize("layers", [[0, 1], [1, 2]])
def test_layers_may_be_compiled_and_embeddings_replaced(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tiny_library: Any, prompt: torch.Tensor, layers: list[int]
) -> None:
    torch._dynamo.reset()
    model = NeuralLibForCausalLM.from_llama(
        tiny_base, tiny_library, tokenizer=tiny_tokenizer, heads={"feature_layers": layers}
    )
    expected = opened(model)(prompt)
    embeddings = torch.nn.Embedding.from_pretrained(model.get_input_embeddings().weight.detach().clone())
    model.set_input_embeddings(embeddings)
    for layer in model.model.layers:
        layer.compile(backend="eager")
    found = model(prompt)
    torch.testing.assert_close(found.logits, expected.logits)
    assert found.calls == expected.calls


def test_a_compiled_model_answers_alike(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(calling, backend="eager")
    torch.testing.assert_close(compiled(prompt).logits, calling(prompt).logits)


def test_one_whole_graph_is_refused_in_clear_words(calling: NeuralLibForCausalLM, prompt: torch.Tensor) -> None:
    torch._dynamo.reset()
    with pytest.raises(Exception, match="compile without fullgraph=True"):
        torch.compile(calling, backend="eager", fullgraph=True)(prompt)


@pytest.mark.parametrize("how", [{"fused": True}, {"foreach": True}])
def test_keys_follow_the_optimiser(calling: NeuralLibForCausalLM, how: dict[str, bool]) -> None:
    computer = calling.computer
    for parameter in computer.parameters():
        parameter.grad = torch.ones_like(parameter)
    computer.eval().settled()
    computer.train()
    torch.optim.AdamW(computer.parameters(), lr=0.1, **how).step()
    assert torch.equal(computer.eval().settled()[0], computer.keys())
