"""Flow matching against closed forms: fields with known integrals, orders of convergence, transport by brute force."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import (
    COUPLINGS,
    GUIDANCES,
    PATHS,
    SOLVERS,
    TIME_GRIDS,
    Consistency,
    CosinePath,
    Distillation,
    DoubledGuidance,
    GuidedDistillation,
    LinearPath,
    StraightnessGrid,
    balanced,
    classifier_free,
    consistent_end,
    ddim,
    end_of,
    end_weight,
    follow,
    long_step,
    masked_flow_loss,
    sinkhorn_plan,
    squared_distances,
    straightness_grid,
    two_steps,
    velocity_to,
)

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2}
CALLS = {"euler": 1, "midpoint": 2, "heun": 2}


def decay(x, t, condition):
    """dx/dt = -3 t^2 x, whose solution at 1 is x e^-1; the condition is not used."""
    return -3 * t.reshape(-1, 1).square() * x


def solve(name, steps, field=decay, start=None, condition=None):
    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64) if start is None else start
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return build(SOLVERS, {"name": name}).solve(field, start, times, condition)


@pytest.mark.parametrize("name", SOLVERS)
def test_solver_reaches_the_known_integral_at_its_order(name):
    truth = torch.tensor([[1.0, -2.0]], dtype=torch.float64) * math.exp(-1)
    errors = [(solve(name, steps).x - truth).abs().max().item() for steps in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.1)
    assert solve(name, 7).evaluations == 7 * CALLS[name]


@pytest.mark.parametrize("name", SOLVERS)
def test_straight_paths_are_exact_in_one_step(name):
    x_0, x_1 = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    solution = solve(name, 1, lambda x, t, c: c - x_0, x_0, x_1)
    torch.testing.assert_close(solution.x, x_1)


def test_field_sees_a_batch_of_times_and_the_condition():
    def field(x, t, condition):
        assert t.shape == (4,)
        assert condition == "text"
        return torch.zeros_like(x)

    solve("heun", 2, field, torch.zeros(4, 2, dtype=torch.float64), "text")


@pytest.mark.parametrize(
    ("spec", "left"),
    [({"name": "linear"}, 0.0), ({"name": "linear", "sigma_min": 0.1}, 0.1), ({"name": "cosine"}, 0.0)],
)
def test_path_ends_and_velocity(spec, left):
    path = build(PATHS, spec)
    x_0, x_1 = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(path.sample(x_0, x_1, torch.zeros(3)).x_t, x_0)
    torch.testing.assert_close(path.sample(x_0, x_1, torch.ones(3)).x_t, x_1 + left * x_0, atol=1e-6, rtol=0)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    sample = path.sample(x_0, x_1, t)
    for index in itertools.product(range(4), range(2)):
        (slope,) = torch.autograd.grad(sample.x_t[:, index[0], index[1]].sum(), t, retain_graph=True)
        torch.testing.assert_close(slope, sample.velocity[:, index[0], index[1]].detach())


def test_optimal_coupling_costs_what_brute_force_finds():
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        x_0, x_1 = (torch.randn(6, 3, generator=generator) for _ in range(2))
        pairs = build(COUPLINGS, {"name": "optimal"}).pair(x_0, x_1)
        assert sorted(pairs.tolist()) == list(range(6))
        cost = (x_0[pairs] - x_1).square().sum().item()
        best = min((x_0[list(p)] - x_1).square().sum().item() for p in itertools.permutations(range(6)))
        assert cost == pytest.approx(best, rel=1e-5)


def test_independent_coupling_changes_nothing():
    x = torch.randn(5, 2)
    assert torch.equal(x[build(COUPLINGS, {"name": "independent"}).pair(x, x)], x)


def test_sinkhorn_has_uniform_marginals_and_tends_to_the_optimum():
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = (torch.randn(6, 3, generator=generator) for _ in range(2))
    cost = squared_distances(x_0, x_1)
    best = min(cost[list(p), range(6)].sum().item() for p in itertools.permutations(range(6))) / 6
    costs = []
    for regularisation in (2.0, 0.5, 0.05):
        plan = sinkhorn_plan(cost, regularisation, 5000)
        sixth = torch.full((6,), 1 / 6, dtype=torch.float64)
        torch.testing.assert_close(plan.sum(0), sixth, atol=1e-6, rtol=0)
        torch.testing.assert_close(plan.sum(1), sixth, atol=1e-4, rtol=0)
        costs.append((plan * cost).sum().item())
    assert costs[0] > costs[1] > costs[2] >= best - 1e-3
    assert costs[2] == pytest.approx(best, rel=1e-2)


def test_sinkhorn_coupling_finds_near_twins_and_repeats_from_its_generator():
    x_0 = 10 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 7, 0, 2, 6, 4, 5])
    coupling = build(COUPLINGS, {"name": "sinkhorn", "regularisation": 0.01})
    assert torch.equal(coupling.pair(x_0, x_0[order] + 0.01), order)
    loose = build(COUPLINGS, {"name": "sinkhorn", "regularisation": 5.0})
    draws = [loose.pair(x_0, x_0[order], torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


GRID_KEYS = {
    "f5_uniform": {"name": "uniform"},
    "f5_sway_-1": {"name": "sway", "s": -1.0},
    "f5_sway_-0.5": {"name": "sway", "s": -0.5},
    "f5_epss": {"name": "pruned"},
    "f5_epss_sway_-1": {"name": "pruned", "s": -1.0},
    "f5_epss_sway_-0.5": {"name": "pruned", "s": -0.5},
    "zipvoice_tshift_0.5": {"name": "shift", "s": 0.5},
    "cosyvoice_cosine": {"name": "sway"},
}


@pytest.mark.parametrize("key", GRID_KEYS)
def test_grids_match_the_published_ones(key, parity_dir):
    reference = json.loads((parity_dir / "f5_time_grids" / "time_grids.json").read_text())
    grid = build(TIME_GRIDS, GRID_KEYS[key])
    for steps, times in reference[key].items():
        expected = torch.tensor(times)
        torch.testing.assert_close(grid.times(int(steps)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", TIME_GRIDS)
def test_grids_run_from_0_to_1_without_turning_back(name):
    measured = {"density": [1.0, 5.0, 0.0, 2.0]} if name == "straightness" else {}
    for steps in (1, 2, 3, 5, 16, 33):
        times = build(TIME_GRIDS, {"name": name, **measured}).times(steps)
        assert times.shape == (steps + 1,)
        assert times[0] == 0
        assert times[-1].item() == pytest.approx(1, abs=1e-6)
        assert (times.diff() > 0).all()


def test_power_grid_is_a_power():
    times = build(TIME_GRIDS, {"name": "power", "alpha": 3.0}).times(4)
    torch.testing.assert_close(times, torch.tensor([0, 1 / 64, 8 / 64, 27 / 64, 1]))


def test_a_straight_flow_has_the_uniform_grid():
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    grid = straightness_grid(lambda x, t, condition: condition - noise, noise, torch.ones(3, 4))
    torch.testing.assert_close(grid.times(7), torch.linspace(0, 1, 8), atol=0, rtol=0)


def test_the_grid_of_a_velocity_that_grows_has_its_closed_form():
    """Of v = 2 t the paths are (2 t - 1)^2 away, which up to t adds up to ((2 t - 1)^3 + 1) / 6."""
    grid = straightness_grid(lambda x, t, condition: 2 * t[:, None].expand_as(x), torch.randn(2, 5).double(), parts=400)
    for steps in (1, 2, 5, 10):
        part = 2 * torch.arange(steps + 1) / steps - 1
        torch.testing.assert_close(grid.times(steps), (1 + part.sign() * part.abs() ** (1 / 3)) / 2, atol=2e-3, rtol=0)


def test_intervals_of_the_grid_are_equally_far_from_straight():
    """For dx/dt = -k x of several k, whose paths are known: x_0 e^(-k t)."""
    rates, x_0 = torch.tensor([[0.5, 4.0, 9.0]]), torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.0, -1.0]])
    grid = straightness_grid(lambda x, t, condition: -condition * x, x_0, rates, parts=500)
    times = grid.times(6).double()
    assert times[1] < 0.1 and (times.diff() > 0).all()  # most of it happens near the noise
    amounts = []
    for low, high in itertools.pairwise(times):
        t = torch.linspace(float(low), float(high), 2001, dtype=torch.float64)[:, None, None]
        away = -rates * x_0 * torch.exp(-rates * t) - x_0 * (torch.exp(-rates) - 1)
        amounts.append(torch.trapezoid(away.square().mean((1, 2)), t[:, 0, 0]))
    torch.testing.assert_close(torch.stack(amounts), torch.stack(amounts).mean().expand(6), atol=0, rtol=0.02)


def test_a_straightness_grid_is_a_spec_of_json_and_leaves_out_no_part_of_time():
    spec = {"name": "straightness", "density": [0.0, 3.0, 0.0, 1.0]}
    times = build(TIME_GRIDS, json.loads(json.dumps(spec))).times(4)
    torch.testing.assert_close(times, torch.tensor([0, 1 / 3, 5 / 12, 1 / 2, 1])[[0, 1, 2, 3, 4]])
    assert torch.equal(StraightnessGrid((0.0, 0.0)).times(3), torch.linspace(0, 1, 4))
    with pytest.raises(ConfigError, match="density"):
        build(TIME_GRIDS, {"name": "straightness"})  # which nobody has measured
    for density in ((), (-1.0, 2.0), (math.nan,), (math.inf,)):
        with pytest.raises(ConfigError, match="density"):
            StraightnessGrid(density)


def test_balanced_velocities_weigh_loud_and_quiet_parts_alike():
    target = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([100.0, 1.0, 0.1])
    predicted, flat = balanced(0.5 * target, target, 1)
    torch.testing.assert_close(flat.std(1), torch.ones(2, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close((predicted - flat).var(1), torch.full((2, 3), 0.25), atol=1e-3, rtol=0)


def test_bad_settings_are_refused_with_the_valid_ones():
    for spec in (
        {"name": "sway", "s": -2.0},
        {"name": "power", "alpha": 0.0},
        {"name": "shift", "s": 0.0},
        {"name": "no"},
    ):
        with pytest.raises(ConfigError, match="remedy"):
            build(TIME_GRIDS, spec)
    with pytest.raises(ConfigError, match="steps"):
        build(TIME_GRIDS, {"name": "uniform"}).times(0)
    with pytest.raises(ConfigError, match="sigma_min"):
        build(PATHS, {"name": "linear", "sigma_min": 1.0})


def test_guidance_formula_and_weights():
    def field(x, t, condition):
        return x * condition

    x, t = torch.tensor([[1.0], [2.0]]), torch.tensor([0.2, 0.8])
    for spec, weights in (
        ({"name": "constant", "weight": 3.0}, (3.0, 3.0)),
        ({"name": "interval", "weight": 3.0, "start": 0.1, "end": 0.5}, (3.0, 0.0)),
        ({"name": "linear", "start": 2.0, "end": 0.0}, (1.6, 0.4)),
    ):
        guided = classifier_free(field, 2.0, build(GUIDANCES, spec))(x, t, 5.0)
        expected = x * 5.0 + torch.tensor(weights)[:, None] * (x * 5.0 - x * 2.0)
        torch.testing.assert_close(guided, expected)


def test_guidance_of_zero_saves_the_second_call():
    seen = []

    def field(x, t, condition):
        seen.append(condition)
        return x

    classifier_free(field, "none", build(GUIDANCES, {"name": "constant", "weight": 0.0}))(
        torch.ones(1), torch.ones(1), "text"
    )
    assert seen == ["text"]


def test_masked_loss_is_the_mean_over_valid_elements():
    predicted, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).unsqueeze(2)
    error = (predicted - target).square()
    expected = torch.cat((error[0].flatten(), error[1, :2].flatten())).mean()
    torch.testing.assert_close(masked_flow_loss(predicted, target, mask), expected)
    predicted[1, 2:] = 1e6
    torch.testing.assert_close(masked_flow_loss(predicted, target, mask), expected)
    torch.testing.assert_close(masked_flow_loss(predicted[:1], target[:1]), error[0].mean())


def test_a_small_net_learns_the_flow_of_a_known_distribution():
    """Flow matching from N(0, 1) to N(4, 0.5^2): the samples' mean and deviation come out."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1)
    )
    path = build(PATHS, {"name": "linear"})
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(600):
        x_0, x_1 = torch.randn(256, 1, generator=generator), 4 + 0.5 * torch.randn(256, 1, generator=generator)
        point = path.sample(x_0, x_1, torch.rand(256, generator=generator))
        loss = masked_flow_loss(net(torch.cat((point.x_t, point.t[:, None]), 1)), point.velocity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        solution = build(SOLVERS, {"name": "heun"}).solve(
            lambda x, t, c: net(torch.cat((x, t[:, None]), 1)),
            torch.randn(4000, 1, generator=generator),
            build(TIME_GRIDS, {"name": "uniform"}).times(20),
        )
    assert solution.x.mean().item() == pytest.approx(4, abs=0.1)
    assert solution.x.std().item() == pytest.approx(0.5, abs=0.1)


def test_long_steps_join_into_the_teachers_path():
    """Each begins where the one before it ended, and its velocity is the mean of the teacher's over it."""
    start, field = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64), decay
    how = Distillation(steps=3, substeps=4)
    steps = [long_step(field, start, which, how) for which in range(3)]
    torch.testing.assert_close(steps[0].x, start)
    for step, after in itertools.pairwise(steps):
        torch.testing.assert_close(step.x + step.velocity / 3, after.x)
    whole = build(SOLVERS, {"name": "euler"}).solve(field, start, torch.linspace(0, 1, 13, dtype=torch.float64)).x
    torch.testing.assert_close(steps[2].x + steps[2].velocity / 3, whole, atol=1e-7, rtol=0)
    assert [float(step.t[0]) for step in steps] == pytest.approx([0, 1 / 3, 2 / 3])
    with pytest.raises(ConfigError):
        Distillation(steps=0)


def test_two_steps_are_those_of_the_teacher():
    """Where the velocity is 2 t alone, both steps and their mean are known; of no length at all it is the teacher's own."""
    x = torch.randn(3, 4, dtype=torch.float64)
    t, first, second = (
        torch.tensor(v, dtype=torch.float64) for v in ([0.1, 0.5, 0.3], [0.2, 0.3, 0.0], [0.3, 0.1, 0.0])
    )
    step = two_steps(lambda x, t, c: c * 2 * t[:, None].expand_as(x), x, t, first, second, 5.0)
    assert step.x is x and step.t is t
    mean = (first * 2 * t + second * 2 * (t + first)) / (first + second)
    wanted = 5 * torch.where(first + second > 0, mean, 2 * t)
    torch.testing.assert_close(step.velocity, wanted[:, None].expand_as(x))


def test_two_steps_have_no_gradient():
    weight = torch.tensor(3.0, requires_grad=True)
    x, one = torch.randn(2, 4, requires_grad=True), torch.full((2,), 0.1)
    assert not two_steps(lambda x, t, c: weight * x, x, one, one, one).velocity.requires_grad


def test_draws_of_two_steps_stay_within_time_and_within_the_longest():
    how = GuidedDistillation(longest=0.3)
    t, first, second = how.draw(20_000, torch.Generator().manual_seed(0))
    assert first.max() <= 0.3 and second.max() <= 0.3 and min(first.min(), second.min()) >= 0
    assert (t + first + second).max() <= 1 + 1e-6
    early = t < 0.4
    assert first[early].mean().item() == pytest.approx(0.15, abs=0.005)
    assert second[early].mean().item() == pytest.approx(0.15, abs=0.005)
    once, again = (torch.stack(how.draw(5, torch.Generator().manual_seed(1))) for _ in range(2))
    assert torch.equal(once, again)
    assert (how.later_from(1000), GuidedDistillation(later=0).later_from(1000)) == (900, 1000)
    for bad in ({"steps": 0}, {"longest": 0.0}, {"guidance": (2.0, 1.0)}, {"guidance": (1.0,)}, {"later": 1.0}):
        with pytest.raises(ConfigError, match="GuidedDistillation"):
            GuidedDistillation(**bad)


def test_a_student_that_is_told_the_guidance_goes_where_its_guided_teacher_goes():
    """Conditional and unconditional velocities are straight: a + b w is learnt exactly, and few steps are as good as many."""
    generator, how = torch.Generator().manual_seed(0), GuidedDistillation()
    conditional, unconditional = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])

    def teacher(x, t, weight):
        return (conditional + weight[:, None] * (conditional - unconditional)).expand_as(x)

    learnt = torch.zeros(2, 2, requires_grad=True)

    def student(x, t, weight):
        return (learnt[0] + weight[:, None] * learnt[1]).expand_as(x)

    optimizer = torch.optim.SGD([learnt], 0.5)
    for _ in range(300):
        t, first, second = how.draw(32, generator)
        weight = 2 * torch.rand(32, generator=generator)
        step = two_steps(teacher, torch.randn(32, 2, generator=generator), t, first, second, weight)
        loss = masked_flow_loss(student(step.x, step.t, weight), step.velocity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(
        learnt.detach(), torch.stack([conditional, conditional - unconditional]), atol=1e-3, rtol=0
    )
    x, weight, solver = torch.randn(5, 2, generator=generator), torch.full((5,), 1.5), build(SOLVERS, {"name": "euler"})
    with torch.no_grad():
        few = solver.solve(student, x, torch.linspace(0, 1, 3), weight)
    many = solver.solve(teacher, x, torch.linspace(0, 1, 17), weight)
    assert few.evaluations == 2
    torch.testing.assert_close(few.x, many.x, atol=5e-3, rtol=0)


def test_doubled_guidance_is_twice_as_heavy_early():
    t = torch.tensor([0.0, 0.5, 0.6, 1.0])
    assert DoubledGuidance(1.5).at(t).tolist() == [3.0, 3.0, 1.5, 1.5]
    assert DoubledGuidance(torch.tensor([1.0, 2.0, 3.0, 4.0]), until=0.0).at(t).tolist() == [2.0, 2.0, 3.0, 4.0]


MEAN, DEVIATION = 2.0, 0.5


def gaussian(x, t, condition):
    """The velocity from N(0, 1) to N(2, 0.5^2) on straight lines; it takes x_0 to 2 + 0.5 x_0."""
    t = t[:, None]
    variance = (1 - t) ** 2 + (t * DEVIATION) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (x - t * MEAN)


def piecewise(table):
    """The end points a(t) x + b(t) with both straight between times a tenth apart: `table` is [11, 2]."""

    def end(x, t, condition):
        near = (1 - (t[:, None] * 10 - torch.arange(11.0)).abs()).clamp(min=0)
        slope, offset = (near @ table).chunk(2, 1)
        return slope * x + offset

    return end


def test_end_and_velocity_tell_the_same():
    x, t = torch.randn(4, 3, 2, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    velocity = velocity_to(lambda x, t, c: c * x)(x, t, 5.0)
    torch.testing.assert_close(velocity[1], 4 * x[1] / 0.7)
    torch.testing.assert_close(end_of(velocity_to(lambda x, t, c: c * x))(x, t, 5.0), 5 * x)
    assert torch.equal(end_of(gaussian)(x[..., 0], torch.ones(4), None), x[..., 0])


def test_a_consistent_student_gets_by_one_step_where_its_teacher_gets_by_many():
    generator, how = torch.Generator().manual_seed(0), Consistency(gap=0.05, deviation=1.0, decay=0.9)
    student = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]).repeat(11, 1))  # says at first that x itself is the end
    target = student.detach().clone()
    optimizer = torch.optim.Adam([student], 0.2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 500)
    for _ in range(500):
        x_0, x_1 = torch.randn(256, 1, generator=generator), torch.randn(256, 1, generator=generator)
        point = LinearPath().sample(x_0, MEAN + DEVIATION * x_1, how.times(256, generator))
        wanted = consistent_end(gaussian, piecewise(target), point, how)
        loss = masked_flow_loss(piecewise(student)(point.x_t, point.t, None), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        follow([target], [student], how.decay)
    noise, solver = torch.linspace(-2, 2, 5)[:, None], build(SOLVERS, {"name": "euler"})
    true = MEAN + DEVIATION * noise
    with torch.no_grad():
        one = solver.solve(velocity_to(piecewise(student)), noise, torch.tensor([0.0, 1.0])).x
    many = solver.solve(gaussian, noise, torch.linspace(0, 1, 21)).x
    torch.testing.assert_close(one, many, atol=0.02, rtol=0)  # where the teacher gets by steps of the same length
    torch.testing.assert_close(one, true, atol=0.1, rtol=0)
    at_once = solver.solve(gaussian, noise, torch.tensor([0.0, 1.0])).x  # which is the mean alone
    assert (one - true).abs().max() < 0.1 * (at_once - true).abs().max()


def test_what_a_student_should_say_is_no_part_of_its_gradient():
    """It is what the target says a gap later, where the teacher goes; at the last times it is the data."""
    how, target = Consistency(gap=0.1), torch.tensor(3.0, requires_grad=True)
    x_0, x_1 = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4)
    point = LinearPath().sample(x_0, x_1, torch.tensor([0.2, 0.9]))
    seen = []

    def end(x, t, condition):
        seen.append((x, t))
        return target * x

    wanted = consistent_end(lambda x, t, c: target * torch.ones_like(x), end, point, how)
    assert not wanted.requires_grad
    [(x, t)] = seen
    torch.testing.assert_close(t, torch.tensor([0.3, 1.0]))
    torch.testing.assert_close(x[0], point.x_t[0] + 0.1 * 3)
    torch.testing.assert_close(wanted, torch.stack([3 * x[0], x_1[1]]))


def test_errors_of_an_end_weigh_more_the_later_it_is_said():
    torch.testing.assert_close(end_weight(torch.tensor([0.0, 0.5, 0.9, 0.95, 1.0])), torch.tensor([1.0, 2, 10, 10, 10]))


def test_times_of_consistency_are_of_a_normal_distribution_that_is_cut_off():
    how = Consistency(deviation=0.5, latest=0.9)
    times = how.times(20_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0 and times.max() <= 0.9
    cut = math.erf(0.9 / 0.5 / math.sqrt(2))
    for below in (0.2, 0.5, 0.8):
        share = (times < below).float().mean().item()
        assert share == pytest.approx(math.erf(below / 0.5 / math.sqrt(2)) / cut, abs=0.01)
    assert torch.equal(times, how.times(20_000, torch.Generator().manual_seed(0)))
    for changed in ({"gap": 0.0}, {"latest": 1.0}, {"deviation": 0.0}, {"decay": 1.0}):
        with pytest.raises(ConfigError, match="Consistency"):
            Consistency(**changed)


def test_an_average_follows_the_weights():
    average, weights = [torch.zeros(2)], [torch.nn.Parameter(torch.ones(2))]
    for _ in range(3):
        follow(average, weights, 0.9)
    torch.testing.assert_close(average[0], torch.full((2,), 1 - 0.9**3))
    with pytest.raises(ValueError, match="shorter"):
        follow(average, [], 0.9)


def test_diffusion_reaches_the_known_end_at_first_order():
    """From N(0, 1) to N(2, 0.5^2) by the best guess of the noise."""

    def noise_in(x, t, condition):
        data, noise = path.scales(t[:, None])
        return noise * (x - data * MEAN) / ((data * DEVIATION) ** 2 + noise**2)

    path, noise = CosinePath(), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    data, own = path.scales(torch.tensor(0.01, dtype=torch.float64))
    start = data * MEAN + ((data * DEVIATION) ** 2 + own**2).sqrt() * noise
    errors = []
    for steps in (50, 100):
        times = torch.linspace(0.01, 1, steps + 1, dtype=torch.float64)
        solution = ddim(noise_in, start, times, path)
        assert solution.evaluations == steps
        errors.append((solution.x - (MEAN + DEVIATION * noise)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)
    assert errors[1] < 0.02
    assert ddim(noise_in, start, times, path, bound=1.5).x.max().item() == pytest.approx(1.5)
