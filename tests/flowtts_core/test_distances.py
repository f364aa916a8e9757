"""KAD and FAD: the authors' toolkits' values, closed forms, no bias, and what they do with bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.metrics import kad as kad_module
from flowtts_core.metrics.fad import Gaussian, extrapolate, fad, fad_of_each, frechet_distance
from flowtts_core.metrics.kad import Kernel, conditional_kad, kad, median_distance, temporal_windows


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.fixture
def published(parity_dir: Path) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Reference x, evaluated y, and what the toolkits make of them."""
    io = load_file(parity_dir / "metrics/io.safetensors")
    return io["x"].double(), io["y"].double(), json.loads((parity_dir / "metrics/distances.json").read_text())


@pytest.mark.parametrize("name", ["gaussian", "iq", "imq"])
def test_kad_equals_the_toolkit(name: str, published: tuple[Tensor, Tensor, dict[str, float]]) -> None:
    x, y, values = published
    from_evaluated = kad(y, x, Kernel(name, bandwidth_from="evaluated"))
    assert 100 * from_evaluated == pytest.approx(values[f"kad.{name}.median_of_y.f64"], rel=1e-6)
    assert 100 * kad(y, x, Kernel(name, bandwidth=3.0)) == pytest.approx(values[f"kad.{name}.fixed_3.0.f64"], rel=1e-6)


def test_kad_by_the_reference_is_the_default(published: tuple[Tensor, Tensor, dict[str, float]]) -> None:
    x, y, values = published
    assert 100 * kad(y, x) == pytest.approx(values["kad.gaussian.median_of_x.f64"], rel=1e-6)
    assert 100 * kad(x, x) == pytest.approx(values["kad.gaussian.self_x_x.f64"], rel=1e-6)
    assert median_distance(x) == pytest.approx(values["median_pairwise_distance.x"], rel=1e-6)
    assert median_distance(y) == pytest.approx(values["median_pairwise_distance.y"], rel=1e-6)


def test_fad_equals_both_toolkits(published: tuple[Tensor, Tensor, dict[str, float]]) -> None:
    x, y, values = published
    assert fad(y, x) == pytest.approx(values["fad.kadtk.f64"], rel=1e-6)
    assert fad(y, x) == pytest.approx(values["fad.fadtk"], rel=1e-9)
    assert fad(y[:10], x) == pytest.approx(values["fad.fadtk.y_first10_rank_deficient"], rel=1e-6)


@pytest.mark.parametrize("kernel", [Kernel(), Kernel("imq", 2.0), Kernel("cubic")], ids=lambda k: k.name)
def test_blocks_change_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(50, 8, 0), normal(41, 8, 1, 0.3)
    whole = kad(y, x, kernel)
    monkeypatch.setattr(kad_module, "TILE", 7)
    monkeypatch.setattr(kad_module, "_KEPT", 10)  # the median too is found in two passes
    assert kad(y, x, kernel) == pytest.approx(whole, rel=1e-12)
    assert kad(y.float(), x.float(), kernel) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 30])
def test_the_median_is_the_lower_one_whichever_way_it_is_found(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(n, 4, 3)
    expected = float(torch.pdist(x).sort().values[(n * (n - 1) // 2 - 1) // 2])
    assert median_distance(x) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(kad_module, "_KEPT", 0)
    assert median_distance(x) == pytest.approx(expected, rel=1e-9)


def test_cubic_kernel_of_unit_vectors() -> None:
    """k(x, x) = 8: one direction against another that is orthogonal to it gives 8 + 8 - 2."""
    one, other = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 3)
    assert kad(one, other, Kernel("cubic")) == 14.0


def test_kad_is_unbiased_and_sees_a_shift() -> None:
    """Equal distributions fall on both sides of 0 (sign test over 200 draws, p above 0.01); shifted ones never do."""
    equal = torch.tensor([kad(normal(25, 64, 2 * i), normal(25, 64, 2 * i + 1)) for i in range(200)])
    above = int((equal > 0).sum())
    assert 2 * sum(math.comb(200, k) for k in range(min(above, 200 - above) + 1)) / 2**200 > 0.01
    assert abs(equal.mean()) < 2.6 * equal.std() / 200**0.5
    shifted = [kad(normal(25, 64, 2 * i, 0.5), normal(25, 64, 2 * i + 1)) for i in range(200)]
    assert sum(value > 0 for value in shifted) == 200


def test_conditional_kad_sees_swapped_texts() -> None:
    sounds, texts = normal(60, 4, 0), normal(60, 3, 1)
    sounds = sounds + 3 * texts @ normal(3, 4, 2)  # each text has its sound
    more_texts = normal(60, 3, 4)
    more_sounds = normal(60, 4, 3) + 3 * more_texts @ normal(3, 4, 2)
    matched = conditional_kad((more_sounds, more_texts), (sounds, texts))
    swapped = conditional_kad((more_sounds, more_texts.roll(1, 0)), (sounds, texts))
    assert swapped > 5 * abs(matched)
    assert kad(more_sounds, sounds) < swapped
    with pytest.raises(ConfigError, match="60 evaluated embeddings for 59 conditions"):
        conditional_kad((sounds, texts[:59]), (sounds, texts))
    mixed = conditional_kad((more_sounds.float(), more_texts), (sounds.float(), texts))
    assert mixed == pytest.approx(matched, abs=1e-5)
    assert mixed == pytest.approx(conditional_kad((more_sounds, more_texts.float()), (sounds, texts.float())), abs=1e-5)


def test_temporal_windows_see_order() -> None:
    rising = torch.arange(40.0)[:, None] % 8
    windows = temporal_windows(rising, 4)
    assert windows.shape == (19, 4)
    assert windows[1].tolist() == [2, 3, 4, 5]
    falling = temporal_windows(rising.flip(0), 4)
    assert kad(rising.flip(0), rising) < 0.01 < kad(falling, windows)  # the same frames, in another order
    assert temporal_windows(rising[:3], 4).shape == (0, 4)


def test_frechet_distance_of_normals_in_closed_form() -> None:
    """Of commuting covariances: the shift plus the squared differences of the standard deviations."""
    a = Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    b = Gaussian(torch.tensor([1.0, 0.0, 2.0]), torch.diag(torch.tensor([2.0, 2.0, 1.0])))
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 4)
    x = normal(200, 16, 0)
    assert fad(x, x) == pytest.approx(0, abs=1e-10)
    assert fad(x[:5], x[:5]) == pytest.approx(0, abs=1e-10)


def test_fad_of_each_finds_the_odd_file() -> None:
    reference = normal(300, 4, 0)
    clips = [normal(20, 4, 1), normal(20, 4, 2, 3.0), normal(1, 4, 3)]
    good, odd, short = fad_of_each(clips, reference)
    assert odd > 5 * good and math.isnan(short)


def test_extrapolation_takes_the_bias_away() -> None:
    """FAD of equal distributions falls as 1 / n; its line goes through about 0 at infinity."""
    x, y = normal(400, 8, 0), normal(4000, 8, 1)
    line = extrapolate(fad, x, y)
    assert line.slope > 0 and line.r2 > 0.8
    assert abs(line.value) < fad(x, y) / 3
    exact = extrapolate(lambda a, b: 2 + 6 / len(a), x, y)
    assert (exact.value, exact.slope, exact.r2) == pytest.approx((2, 6, 1))
    with pytest.raises(ConfigError, match="two sizes"):
        extrapolate(fad, x[:2], y)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (torch.zeros(1, 4), torch.zeros(5, 4), "1 evaluated embeddings"),
        (torch.zeros(5, 4), torch.zeros(0, 4), "0 reference embeddings"),
        (torch.zeros(5, 4), torch.zeros(5, 3), "4 evaluated against 3"),
        (torch.tensor([[1.0], [math.nan]]), torch.zeros(5, 1), "row 1"),
        (torch.zeros(5), torch.zeros(5, 1), r"shape \(5,\)"),
    ],
)
def test_bad_input(ours: Tensor, theirs: Tensor, says: str) -> None:
    for distance in (kad, fad):
        with pytest.raises(ConfigError, match=says):
            distance(ours, theirs)


@pytest.mark.parametrize("settings", [{"name": "linear"}, {"bandwidth": -1.0}, {"bandwidth_from": "both"}])
def test_bad_kernels(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Kernel(**settings)  # type: ignore[arg-type]  # wrong on purpose
