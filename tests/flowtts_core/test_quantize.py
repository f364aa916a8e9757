"""Quantisers: parity with EnCodec's, closed forms, and training in several processes as in one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flowtts_core.codec.codebook import Codebook, codebook_use, count_codes, kmeans, nearest
from flowtts_core.codec.quantize import (
    FactorizedQuantizer,
    FiniteScalarQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from flowtts_core.nn.share import Share


def residual(stages: int, dim: int, size: int, codebook_dim: int | None = None, **settings: float) -> ResidualQuantizer:
    return ResidualQuantizer([VectorQuantizer(dim, size, codebook_dim, **settings) for _ in range(stages)])


def test_codes_equal_published_rvq(parity_dir: Path) -> None:
    io, weights = (
        load_file(parity_dir / "metrics/io.safetensors"),
        load_file(parity_dir / "metrics/weights.safetensors"),
    )
    rvq = residual(4, 16, 32, 8).eval()
    rvq.load_state_dict({name.removeprefix("rvq."): tensor for name, tensor in weights.items()})
    for books, end in ((None, ""), (2, "_nq2")):
        codes = rvq.encode(io["rvq.z"], books)
        assert torch.equal(codes, io[f"rvq.codes{end}"].transpose(0, 1))
        torch.testing.assert_close(rvq.decode(codes), io[f"rvq.decoded{end}"], atol=1e-6, rtol=0)


def test_one_step_of_training_equals_published_rvq(parity_dir: Path) -> None:
    io = load_file(parity_dir / "metrics/io.safetensors")
    rvq = residual(3, 8, 16).train()
    at = "rvq.noproj."
    rvq.load_state_dict({k.removeprefix(f"{at}before."): t for k, t in io.items() if k.startswith(f"{at}before.")})
    latents = io[f"{at}z"].clone().requires_grad_()
    made = rvq(latents)
    assert torch.equal(made.codes, io[f"{at}codes"].transpose(0, 1))
    torch.testing.assert_close(made.values, io[f"{at}quantized"], atol=1e-6, rtol=0)
    torch.testing.assert_close(made.losses["commitment"], io[f"{at}commit_loss"].mean(), atol=1e-6, rtol=0)
    for name, tensor in rvq.state_dict().items():
        torch.testing.assert_close(tensor, io[f"{at}after.{name}"], atol=1e-6, rtol=0)
    made.values.sum().backward()  # straight through: three stages, each of which passes what it is given
    assert latents.grad is not None and bool((latents.grad != 0).all())


def test_the_error_falls_with_each_stage_and_two_codes_split_a_cube() -> None:
    """Stage q of halves of an evenly filled interval leaves 1 / 2^q of its length: a quarter of the squared error each time."""
    rvq, points = residual(5, 1, 2), (torch.arange(4096) + 0.5) / 2048 - 1
    for stage, layer in enumerate(rvq.layers):
        layer._codebook.embed.copy_(torch.tensor([[-1.0], [1.0]]) * 2.0 ** -(stage + 1))
    rvq.eval()
    errors = [
        float((rvq.decode(rvq.encode(points[None, None], books)) - points).square().mean()) for books in range(1, 6)
    ]
    for stage, error in enumerate(errors, 1):
        assert error == pytest.approx(4.0**-stage / 3, rel=1e-3)


def test_use_of_codebooks_in_closed_form() -> None:
    codes = torch.stack([torch.arange(64) % 16, torch.arange(64) % 4, torch.zeros(64)])[None].long()
    use = codebook_use(count_codes(codes, 16) + count_codes(codes.flip(2), 16))
    torch.testing.assert_close(use.perplexity, torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(use.used, torch.tensor([1.0, 0.25, 1 / 16], dtype=torch.float64))


def test_kmeans_finds_well_parted_clusters() -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    means, sizes = kmeans(points, 3, 10, generator)
    assert sizes.sum() == 150
    if bool((sizes == 50).all()):  # a start in three clusters; Lloyd's algorithm leaves two starts in one as they are
        torch.testing.assert_close(means[nearest(centres, means)], centres, atol=0.1, rtol=0)
    few, _ = kmeans(points[:2], 4, 3, generator)
    assert few.isfinite().all() and len(few) == 4


def test_the_nearest_code_is_that_of_the_smallest_distance_and_of_equals_the_first() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors, table = (torch.randn(count, 5, generator=generator) for count in (3000, 70))
    assert torch.equal(nearest(vectors, table), torch.cdist(vectors.double(), table.double()).argmin(1))
    assert torch.equal(nearest(vectors, torch.cat([table, table])), nearest(vectors, table))
    assert nearest(vectors[:0], table).shape == (0,)


def test_codes_start_at_the_data_and_dead_ones_are_replaced() -> None:
    torch.manual_seed(0)
    book = Codebook(8, 2, kmeans_iterations=10, decay=0.5, replace_after=20.0).train()
    assert not bool(book.inited)
    near, far = torch.randn(4, 50, 2), 100 + torch.randn(4, 50, 2)
    book(near)
    assert bool(book.inited) and book.table.abs().max() < 10
    for _ in range(8):
        book(far)  # what was near is used no more
    assert (book.table > 50).all(), "each code is where the data are"
    counts = count_codes(book(far)[2][:, None], 8)
    assert (counts > 0).float().mean() > 0.7
    still = Codebook(8, 2, kmeans_iterations=10, decay=0.5).train()
    for data in (near, *[far] * 8):
        still(data)
    assert (still.table < 50).any(), "without replacement some stay"


def test_normalised_codes_lie_on_the_sphere_and_do_not_hear_loudness() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 32, 8, kmeans_iterations=5, normalised=True, replace_after=5.0).train()
    x = torch.randn(2, 16, 40)
    quantizer(x)
    table = quantizer._codebook.table
    torch.testing.assert_close(table.norm(dim=1), torch.ones(32))
    quantizer.eval()
    assert isinstance(quantizer.project_in, torch.nn.Linear)
    quantizer.project_in.bias.data.zero_()
    assert torch.equal(quantizer.encode(x), quantizer.encode(7 * x))


def test_factorised_codes_are_found_by_angle_and_decoded_as_they_are() -> None:
    torch.manual_seed(0)
    quantizer = FactorizedQuantizer(2, 3, 2)
    for projection in (quantizer.in_proj, quantizer.out_proj):
        projection.weight.data.copy_(torch.eye(2)[:, :, None])
        projection.bias.data.zero_()
    quantizer.table.data.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1], [-1.0, -1.0]]))
    x = torch.tensor([[[0.2, 9.0], [0.1, 10.0]]])  # nearest by angle: codes 0 and 1
    made = quantizer(x.requires_grad_())
    assert made.codes.tolist() == [[[0, 1]]] and quantizer.encode(x).tolist() == [[0, 1]]
    torch.testing.assert_close(made.values, torch.tensor([[[5.0, 0.0], [0.0, 0.1]]]))
    torch.testing.assert_close(quantizer.decode(made.codes[:, 0]), made.values)
    made.losses["codebook"].backward()
    assert quantizer.table.grad.any() and not x.grad.any(), "the codebook's loss moves the codes alone"


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,), (2, 4)])
def test_fsq_codes_are_all_combinations_of_levels(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(6, levels)
    assert quantizer.size == torch.tensor(levels).prod()
    every = torch.arange(quantizer.size)[None]
    digits = every[..., None] // quantizer.basis % quantizer.level - quantizer.level // 2
    assert torch.equal(quantizer._codes(digits.float()), every)
    spread = torch.randn(1, 40_000, len(levels)) * 4
    numbers = quantizer.bounded(spread).round()
    for column, count in enumerate(levels):
        assert len(numbers[0, :, column].unique()) == count
    x = torch.randn(2, 6, 30, requires_grad=True)
    made = quantizer(x)
    assert torch.equal(made.codes[:, 0], quantizer.encode(x))
    torch.testing.assert_close(quantizer.decode(made.codes[:, 0]), made.values)
    made.values.sum().backward()
    assert x.grad.abs().sum() > 0


def test_dropout_trains_items_with_fewer_codebooks() -> None:
    torch.manual_seed(0)
    rvq = residual(4, 8, 16, kmeans_iterations=5)
    rvq.dropout = 1.0
    x = torch.randn(200, 8, 5)
    rvq(x)
    made, whole = rvq(x), None
    sums = torch.stack([layer.decode(codes) for layer, codes in zip(rvq.layers, made.codes.unbind(1), strict=True)], 1)
    distances = (
        (sums.cumsum(1) - made.values[:, None]).abs().mean((2, 3))
    )  # [B, 4]: the last step moved the codes a little
    counts = torch.bincount(distances.argmin(1), minlength=4)
    assert (counts > 25).all(), f"each number of codebooks is met about 50 times of 200: {counts.tolist()}"
    rvq.eval()
    whole = rvq(x)
    assert torch.equal(whole.codes, rvq.encode(x))
    torch.testing.assert_close(whole.values, rvq.decode(whole.codes))


def test_training_in_three_processes_equals_training_in_one() -> None:
    """Codes start, move and are replaced by the whole batch, whoever computes its parts."""
    batch = torch.randn(3, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    rows = ([0, 4], [1, 2, 5], [3])

    def trained(own: list[int] | None, total: object = None) -> tuple[ResidualQuantizer, list[float]]:
        rvq, losses = _fresh(), []
        generator = torch.Generator().manual_seed(1)
        for step in batch:
            share = None if own is None else Share(torch.tensor(own), 6, True, total)
            made = rvq(step if own is None else step[own], share, generator)
            losses.append(float(made.losses["commitment"]))
        return rvq, losses

    def _fresh() -> ResidualQuantizer:
        rvq = residual(2, 8, 12, 4, kmeans_iterations=3, replace_after=0.5, decay=0.8)
        rvq.dropout = 0.5
        own = torch.Generator().manual_seed(7)
        for parameter in rvq.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=own))
        return rvq.train()

    alone, losses = trained(None)
    barrier, slots, results = threading.Barrier(3), [None] * 3, [None] * 3

    def work(rank: int) -> None:
        def total(values: torch.Tensor) -> torch.Tensor:
            slots[rank] = values.detach()
            barrier.wait()
            summed = torch.stack(list(slots)).sum(0)
            barrier.wait()
            return summed

        results[rank] = trained(rows[rank], total)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for shared, own in results:
        torch.testing.assert_close(own, losses, atol=1e-5, rtol=1e-5)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(shared.state_dict()[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
