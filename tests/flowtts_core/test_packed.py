"""Products with weights laid out for oneDNN: torch's own results, whatever stands beside a row, and always of today's weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from flowtts_core.nn import packed
from flowtts_core.nn.attention import SelfAttention
from flowtts_core.nn.packed import Linear, is_packable

needs_onednn = pytest.mark.skipif(not packed._ONEDNN, reason="torch has no oneDNN products on this machine")


def layer_of(activation: str = "none", bias: bool = True) -> Linear:
    torch.manual_seed(3)
    return Linear(24, 40, bias, activation)


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_torchs(activation: str, bias: bool) -> None:
    layer = layer_of(activation, bias)
    x = torch.randn(3, 17, 24)
    expected = layer(x)  # with gradients, by torch
    assert expected.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected.detach(), atol=2e-6, rtol=0)
        torch.testing.assert_close(layer(x.transpose(0, 1)), expected.detach().transpose(0, 1), atol=2e-6, rtol=0)


@needs_onednn
def test_rows_are_alike_however_many_there_are() -> None:
    layer = Linear(512, 128)
    x = torch.randn(700, 512)
    with torch.inference_mode():
        whole = layer(x)
        assert all(torch.equal(layer(x[:rows]), whole[:rows]) for rows in (2, 3, 31, 64, 255, 257, 699))


@torch.no_grad()
def test_changed_weights_are_seen_and_copies_have_their_own() -> None:
    layer, x = layer_of(), torch.randn(5, 24)
    before = layer(x)
    twin, stored = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    layer.weight.mul_(2)
    layer.bias.mul_(2)
    torch.testing.assert_close(layer(x), 2 * before)
    torch.testing.assert_close(twin(x), before)
    torch.testing.assert_close(stored(x), before)
    twin.load_state_dict(layer.state_dict())
    torch.testing.assert_close(twin(x), 2 * before)


def test_only_plain_float32_of_several_rows_is_packed() -> None:
    weight, x = torch.randn(8, 6), torch.randn(4, 6)
    assert not is_packable(x, weight)  # gradients are asked for
    with torch.no_grad():
        assert is_packable(x, weight) == packed._ONEDNN
        assert not is_packable(x[:1], weight)
        assert not is_packable(x[0], weight)
        assert not is_packable(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_packable(x, weight)
            assert Linear(6, 8)(x).dtype == torch.bfloat16


def test_attention_projects_as_its_layers_do() -> None:
    attention = SelfAttention(16, 2, 8, 0.0).eval()
    x = torch.randn(2, 30, 16)
    expected = attention(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(attention(x), expected, atol=2e-6, rtol=0)
    with torch.no_grad():
        nn.init.zeros_(attention.to_v.weight)
        torch.testing.assert_close(attention(x), attention.to_out[0].bias.expand(2, 30, 16))
