"""The paper's experiments as data (section 5.2, Appendix D). Serves `studies`, and chapters 08 to 11 through it.

A study is a question with up to three plans: "quick" on bundled data, "laptop" on a CPU, "paper" at the paper's
scale on a GPU. The paper leaves open the batch size, the activation, the grid of learning rates and where a learned
noise variance starts; what stands here is our choice, and the mnist-sensitivity and mnist-sigma-init studies vary it.
On faces a learned noise variance is set to its best value after every epoch: Adam moves log sigma2 by about one
learning rate a step, and with so few faces the steps would not suffice to bring it down.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from helpers import celeba, records, spectrum, vae
from helpers._validation import brief, instance, one_of, record_with
from helpers.experiments import Plan
from helpers.train import LinearAnnealing, Member

SIGMA2 = (0.1, 0.05, 0.01, 0.001)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
STARTS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SEEDS = (1, 2, 3)
GRID = ("mnist-fixed", "mnist-annealed", "mnist-learned")
DIGITS = partial(vae.mlp, n=64, hidden=(128, 64), k=40)
MNIST = partial(vae.mlp, n=784, hidden=(1024, 512), k=200)
PATCHES = partial(vae.conv, size=64, channels=(3, 8, 16, 32), dense=64, k=64)
FACES = partial(vae.conv, size=64, channels=(3, 32, 32, 64, 64), dense=256, k=500)
FACE_RATES = (1e-4, 3e-4, 1e-3)


@dataclass(frozen=True)
class Study:
    """A question and its plans: by profile a `Plan`, or a function that makes it when asked."""

    title: str
    plans: dict

    def __post_init__(self):
        if not instance("title", self.title, str):
            raise ValueError("title is ''; expected a question")
        if not instance("plans", self.plans, dict):
            raise ValueError("plans is {}; expected at least one plan")
        for profile, plan in self.plans.items():
            if not isinstance(profile, str) or not (isinstance(plan, Plan) or callable(plan)):
                raise ValueError(f"plans has {brief({profile: plan})}; expected a Plan, or what makes one, by profile")


def find(study, profile):
    """The plan of a study.

    Raises
    ------
    ValueError
        When there is no such study or it has no such profile (the message lists what there is), or when the plan
        follows from a record that is not there yet.
    """
    plans = STUDIES[one_of("study", study, STUDIES)].plans
    if not isinstance(profile, str) or profile not in plans:
        raise ValueError(f"profile is {brief(profile)}; {study} has {', '.join(plans)}")
    return plans[profile]() if callable(plans[profile]) else plans[profile]


def best(record):
    """Of each configuration in a record, the position of the learning rate whose final training ELBO is best."""
    record_with(record, "elbo", "set_sigma2", "set_sigma2_rule", "set_beta")
    elbo = np.nan_to_num(record.elbo.values, nan=-np.inf)  # beyond float32: after the largest learning rates
    configurations = zip(*(record[f"set_{name}"].values for name in ("sigma2", "sigma2_rule", "beta")), strict=True)
    chosen = {}
    for m, configuration in enumerate(configurations):
        if elbo[m] > elbo[chosen.setdefault(configuration, m)]:
            chosen[configuration] = m
    return list(chosen.values())


def is_annealed(record):
    """Which members of a record had beta rising, (M,) bool: from the end of the first epoch to a later one's.

    Of a member whose history does not tell, as it diverged in the first epoch or beta rose within it, its text decides.
    """
    record_with(record, "set_beta")
    named = np.array([str(text).startswith("LinearAnnealing(") for text in record.set_beta.values])
    if "history_beta" not in record:
        return named
    beta = record.history_beta.transpose("epoch", "member").values
    rises, falls = np.fmax.reduce(beta) > beta[0], np.fmin.reduce(beta) < beta[0]
    return rises | (named & ~falls)


def _fixed(rates, annealing):
    return tuple(Member(0, rate, sigma2) for sigma2 in SIGMA2 for rate in rates)


def _annealed(rates, annealing):
    return tuple(replace(member, beta=LinearAnnealing(annealing)) for member in _fixed(rates, annealing))


def _learned(rates, annealing, starts=(1.0,), rule="adam"):
    betas = (1.0, LinearAnnealing(annealing))
    return tuple(Member(0, rate, start, rule, beta) for beta in betas for start in starts for rate in rates)


def _three_plans(members, early):
    """Plans for the three profiles, with a snapshot after the share `early` of the annealing's epochs."""

    def plan(data, network, rates, annealing, epochs, batch_size, precision):
        snapshots = (round(early * annealing),)
        return Plan(data, network, members(rates, annealing), epochs, batch_size, snapshots, precision)

    return {
        "quick": plan("digits", DIGITS, (2e-3,), 40, 100, 128, "float32"),
        "laptop": plan("mnist", MNIST, (1e-3,), 50, 150, 512, "bfloat16"),
        "paper": plan("mnist", MNIST, RATES, 100, 1000, 128, "tf32"),
    }


def _faces_plans(members, laptop_epochs):
    """Plans on faces, for quick on patches of photographs. They are few and the steps with them, so all is shorter."""

    def plan(data, network, rates, annealing, epochs, batch_size, precision):
        snapshots = (round(0.8 * annealing),)
        shown = (3, 5, 7, 4, 6, 0, 1, 2) if data == "patches" else tuple(range(8))  # three that differ, for the plane
        return Plan(data, network, members(rates, annealing), epochs, batch_size, snapshots, precision, shown)

    return {
        "quick": plan("patches", PATCHES, (2e-3,), 5, 12, 16, "float32"),
        "laptop": plan("faces", FACES, (1e-3,), 4, laptop_epochs, 64, "bfloat16"),
        "paper": plan("faces", FACES, FACE_RATES, 10, 30, 128, "tf32"),
    }


def _best_members(study, seeds, follower):
    """Members of a study's paper plan, of each configuration that with the best learning rate, with other seeds."""
    record = records.recorded(study, "paper")
    if record is None:
        raise ValueError(f"{follower} follows {study}, profile paper, which has no record yet; run and record it")
    members = find(study, "paper").members
    chosen = [members[m] for m in record.member.values[best(record)]]
    return tuple(replace(member, seed=seed) for member in chosen for seed in seeds)


def _mnist_seeds():
    """The best learning rate of every configuration, with other seeds."""
    members = [member for study in GRID for member in _best_members(study, SEEDS, "mnist-seeds")]
    return replace(find(GRID[-1], "paper"), members=tuple(members))


def _longer(study):
    """The best learning rate of every configuration on faces, for more epochs, with two seeds."""
    members = _best_members(study, SEEDS[:2], f"{study}-longer")
    betas = [LinearAnnealing(33) if callable(member.beta) else member.beta for member in members]
    members = tuple(replace(member, beta=beta) for member, beta in zip(members, betas, strict=True))
    return replace(find(study, "paper"), members=members, epochs=100, snapshots=(27,))


def _faces_adam():
    """A learned noise variance that Adam has not far to bring: it starts where the linear VAE's is best."""
    paper = find("faces-learned", "paper")
    start = float(spectrum.learned_sigma2(celeba.eigenvalues()[0], paper.network.keywords["dense"]))
    members = tuple(Member(0, 3e-4, start, "adam", beta) for beta in (1.0, LinearAnnealing(33)))
    return replace(paper, members=members, epochs=100, batch_size=64, snapshots=(27,))


def _starts():
    """Learned noise variances from far above to far below where they end."""
    quick, paper = STUDIES["mnist-learned"].plans["quick"], STUDIES["mnist-learned"].plans["paper"]
    return {
        "quick": replace(quick, members=_learned((2e-3,), 40, STARTS[1::2])),
        "paper": replace(paper, members=_learned((1e-3,), 100, STARTS)),
    }


def _sensitivity():
    """One choice of ours changed at a time, for a fixed and for learned noise variances."""
    changes = {
        "base": {},
        "batch-64": {"batch_size": 64},
        "batch-512": {"batch_size": 512},
        "tanh": {"activation": nn.Tanh},
        "dequantised": {"data": "dequantised"},
        "float32": {"precision": "float32"},
        "bfloat16": {"precision": "bfloat16"},
    }
    found = {}
    for name, change in changes.items():
        plans = {}
        for profile, rate, annealing in (("quick", 2e-3, 40), ("paper", 1e-3, 100)):
            plan = STUDIES["mnist-learned"].plans[profile]
            members = (Member(0, rate, 0.01), *_learned((rate,), annealing))
            if "activation" in change:
                plan = replace(plan, network=partial(plan.network, **change))
            elif "data" in change:
                plan = replace(plan, data=f"{plan.data}-{change['data']}")
            else:
                plan = replace(plan, **change)
            plans[profile] = replace(plan, members=members)
        found[f"mnist-sensitivity-{name}"] = Study(f"One choice changed: {name}", plans)
    return found


STUDIES = {
    "demo": Study(
        "Four noise variances on digits: the smaller, the fewer latents collapse",
        {"quick": Plan("digits", partial(vae.mlp, n=64, hidden=(128,), k=16), _fixed((2e-3,), 0), 60, 64)},
    ),
    "mnist-fixed": Study("Figures 3 and 4, Table 1: fixed noise variances", _three_plans(_fixed, 0.8)),
    "mnist-annealed": Study("Figure 5: the same, with beta from 0 to 1", _three_plans(_annealed, 0.8)),
    "mnist-learned": Study("Figure 6: noise variance learned, with and without annealing", _three_plans(_learned, 0.8)),
}
STUDIES["mnist-seeds"] = Study(
    "Figures 3 to 6, Table 1: three more seeds at the best learning rate", {"paper": _mnist_seeds}
)
STUDIES["mnist-sigma-init"] = Study("Figure 6: where a learned noise variance starts", _starts())
STUDIES |= _sensitivity()
STUDIES["faces-learned"] = Study(
    "Figures 7, 8, 10 and 11: convolutional VAEs on faces, noise variance learned, with and without annealing",
    _faces_plans(partial(_learned, rule="closed form"), 10),
)
STUDIES["faces-fixed"] = Study("Figure 9: the same with fixed noise variances", _faces_plans(_fixed, 4))
STUDIES["mnist-fixed-second-seed"] = Study(
    "Figures 3 and 4, Table 1: a second seed at the rate 3e-4",
    {"paper": replace(find("mnist-fixed", "paper"), members=tuple(Member(1, 3e-4, s) for s in SIGMA2))},
)
STUDIES["mnist-fixed-decayed"] = Study(
    "Beyond the paper: the learning rate 3e-4 falls to 0 over the last third, which tells slow from stuck",
    {
        "quick": replace(find("mnist-fixed", "quick"), members=tuple(Member(0, 2e-3, s, decay=1 / 3) for s in SIGMA2)),
        "paper": replace(find("mnist-fixed", "paper"), members=tuple(Member(0, 3e-4, s, decay=1 / 3) for s in SIGMA2)),
    },
)
STUDIES["faces-adam"] = Study(
    "Figures 7 and 8: noise variance learned by Adam, from that of the best linear VAE", {"paper": _faces_adam}
)
for _study in ("faces-learned", "faces-fixed"):
    STUDIES[f"{_study}-longer"] = Study(
        f"{STUDIES[_study].title.split(':')[0]}: longer, at the best learning rate, two seeds",
        {"paper": partial(_longer, _study)},
    )
