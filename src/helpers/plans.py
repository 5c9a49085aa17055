"""The paper's experiments as data (section 5.2, Appendix D). Serves `studies`, and chapters 08 to 12 through it.

A study is a question with up to three plans: "quick" on bundled data, "laptop" on a CPU, "paper" at the paper's
scale on a GPU. The paper leaves open the batch size, the activation, the grid of learning rates and where a learned
noise variance starts; what stands here is our choice, and the mnist-sensitivity and mnist-sigma-init studies vary it.
On faces a learned noise variance is set to its best value after every epoch: Adam moves log sigma2 by about one
learning rate a step, and with so few faces the steps would not suffice to bring it down.
"""

import json
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from helpers import celeba, objective, records, spectrum, vae
from helpers._validation import brief, instance, integer, one_of
from helpers.data import DATA, load
from helpers.ensemble import PRECISIONS, LinearAnnealing, Member


@dataclass(frozen=True)
class Plan:
    """All that decides a run of a study.

    Parameters
    ----------
    data : str
        A key of `data.DATA`, or the path of a .npy file.
    network : functools.partial
        Makes one VAE, from keyword arguments alone; records name the function and them.
    members : tuple of Member
        With seeds below 2^31, the largest integer of a NetCDF 3 file.
    epochs, batch_size : int
    snapshots : tuple of int
        Epochs with the statistics of every unit; those at the end are always taken.
    precision : str
    pictures : tuple of int
        Positions of images in the data that the record shows reconstructed, the first three also as the corners of a
        plane of the latent space; none by default.
    """

    data: str
    network: partial
    members: tuple
    epochs: int
    batch_size: int = 128
    snapshots: tuple = ()
    precision: str = "float32"
    pictures: tuple = ()

    def __post_init__(self):
        if not (isinstance(self.data, str) and self.data.endswith(".npy")):
            one_of("data", self.data, DATA)
        if instance("network", self.network, partial).args:
            raise ValueError(f"network has the arguments {brief(self.network.args)}; expected keyword arguments alone")
        one_of("precision", self.precision, PRECISIONS)
        members = tuple(instance("members", self.members, (tuple, list)))
        if not members or not all(isinstance(member, Member) for member in members):
            raise ValueError(f"members is {brief(members)}; expected at least one Member")
        epochs = integer("epochs", self.epochs, 1, 2**31)
        checked = {"members": members, "epochs": epochs, "batch_size": integer("batch_size", self.batch_size, 1, 2**31)}
        for name, low, high in (("snapshots", 1, epochs), ("pictures", 0, 2**31)):
            several = instance(name, getattr(self, name), (tuple, list))
            checked[name] = tuple(integer(name, one, low, high) for one in several)
        for name, value in checked.items():  # plain numbers, which JSON takes
            object.__setattr__(self, name, value)

    def settings(self):
        """The plan as plain values, for records."""
        network = {"name": self.network.func.__name__, **self.network.keywords}
        network = {key: getattr(value, "__name__", value) for key, value in network.items()}
        names = ("data", "epochs", "batch_size", "snapshots", "pictures")
        settings = {"network": network, **{name: getattr(self, name) for name in names}}
        return json.loads(json.dumps(settings))  # as a record gives them back, lists for tuples


@dataclass(frozen=True)
class Study:
    """A question and its plans.

    Parameters
    ----------
    title : str
        The question.
    plans : dict of str to Plan or callable
        By profile: a plan, or a function that makes it when asked.
    """

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

    Parameters
    ----------
    study, profile : str

    Returns
    -------
    Plan

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


def own(data, latents, sigma2=(0.1,), epochs=100, hidden=(128,), learning_rate=1e-3):
    """A plan for data of your own: one VAE for each noise variance.

    Parameters
    ----------
    data : str
        Path of a .npy file, as `data.load` reads it, or a key of `data.DATA`.
    latents : int
    sigma2 : sequence of float
    epochs : int
    hidden : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse, and without any both are linear.
    learning_rate : float

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        When an argument is bad, or the file holds no finite numbers (N, ...).
    FileNotFoundError
        When there is no such file.

    Examples
    --------
    >>> plan = own("digits", latents=16, sigma2=[0.3, 0.1])
    >>> len(plan.members), plan.network.keywords["n"]
    (2, 64)
    """
    x = load(data)
    n, k = x[0].size, integer("latents", latents, 1, 2**31)
    widths = tuple(integer("hidden", width, 1, 2**31) for width in instance("hidden", hidden, (tuple, list)))
    if not (several := instance("sigma2", sigma2, (tuple, list))):
        raise ValueError("sigma2 is empty; expected at least one noise variance")
    return Plan(
        data=str(data),
        network=partial(vae.mlp, n=n, hidden=widths, k=k),
        members=tuple(Member(sigma2=one, learning_rate=learning_rate) for one in several),
        epochs=epochs,
        batch_size=min(128, max(1, len(x) // 10)),  # small data too take ten steps an epoch
    )


# What a plan is made of

SIGMA2 = (0.1, 0.05, 0.01, 0.001)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
FACE_RATES = (1e-4, 3e-4, 1e-3)
STARTS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SEEDS = (1, 2, 3)
GRID = ("mnist-fixed", "mnist-annealed", "mnist-learned")
DIGITS = partial(vae.mlp, n=64, hidden=(128, 64), k=40)
MNIST = partial(vae.mlp, n=784, hidden=(1024, 512), k=200)
PATCHES = partial(vae.conv, size=64, channels=(3, 8, 16, 32), dense=64, k=64)
FACES = partial(vae.conv, size=64, channels=(3, 32, 32, 64, 64), dense=256, k=500)

# A scale: all of a plan but its members. Annealing ends after a part of the epochs, and the snapshot is taken after
# four fifths of it.
ON_DIGITS = {  # annealing over 40 epochs
    "data": "digits",
    "network": DIGITS,
    "epochs": 100,
    "batch_size": 128,
    "snapshots": (32,),
}
ON_MNIST_BY_CPU = {  # annealing over 50 epochs
    "data": "mnist",
    "network": MNIST,
    "epochs": 150,
    "batch_size": 512,
    "snapshots": (40,),
    "precision": "bfloat16",
}
ON_MNIST = {  # annealing over 100 epochs
    "data": "mnist",
    "network": MNIST,
    "epochs": 1000,
    "batch_size": 128,
    "snapshots": (80,),
    "precision": "tf32",
}
# Patches and faces are few, and the steps with them, so all is shorter.
ON_PATCHES = {  # annealing over 2 epochs
    "data": "patches",
    "network": PATCHES,
    "epochs": 5,
    "batch_size": 16,
    "snapshots": (2,),
    "pictures": (3, 5, 7, 4, 6, 0, 1, 2),  # the first three differ, for the plane
}
ON_FACES_BY_CPU = {  # annealing over 4 epochs
    "data": "faces",
    "network": FACES,
    "batch_size": 64,
    "snapshots": (3,),
    "precision": "bfloat16",
    "pictures": tuple(range(8)),
}
ON_FACES = {  # annealing over 10 epochs
    "data": "faces",
    "network": FACES,
    "epochs": 30,
    "batch_size": 128,
    "snapshots": (8,),
    "precision": "tf32",
    "pictures": tuple(range(8)),
}


def _fixed(rates, **others):
    """Members of the paper's four noise variances, with each of the learning rates."""
    members = [Member(sigma2=sigma2, learning_rate=rate) for sigma2 in SIGMA2 for rate in rates]
    return tuple(replace(member, **others) for member in members)


def _learned(rates, annealing, starts=(1.0,), rule="adam"):
    """Members whose noise variance is learned, without annealing and with it."""
    return tuple(
        Member(learning_rate=rate, sigma2=start, sigma2_rule=rule, beta=beta)
        for beta in (1.0, LinearAnnealing(annealing))
        for start in starts
        for rate in rates
    )


# Plans that follow from a record of other plans


def _best_members(study, seeds, follower):
    """Members of a study's paper plan, of each configuration that with the best learning rate, with other seeds."""
    record = records.recorded(study, "paper")
    if record is None:
        raise ValueError(f"{follower} follows {study}, profile paper, which has no record yet; run and record it")
    members = find(study, "paper").members
    chosen = [members[m] for m in record.member.values[records.best(record)]]
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


# Studies

CHANGES = {  # of one choice at a time
    "base": lambda scale: {},
    "batch-64": lambda scale: {"batch_size": 64},
    "batch-512": lambda scale: {"batch_size": 512},
    "tanh": lambda scale: {"network": partial(scale["network"], activation=nn.Tanh)},
    "dequantised": lambda scale: {"data": f"{scale['data']}-dequantised"},
    "float32": lambda scale: {"precision": "float32"},
    "bfloat16": lambda scale: {"precision": "bfloat16"},
}


def _changed(change):
    """Plans with one choice of ours changed, for a fixed and for learned noise variances."""
    rate, fixed = 2e-3, Member(sigma2=0.01)
    quick = (replace(fixed, learning_rate=rate), *_learned(rates=(rate,), annealing=40))
    rate = 1e-3
    paper = (replace(fixed, learning_rate=rate), *_learned(rates=(rate,), annealing=100))
    return {
        "quick": Plan(**ON_DIGITS | change(ON_DIGITS), members=quick),
        "paper": Plan(**ON_MNIST | change(ON_MNIST), members=paper),
    }


LOSSES = (  # of `objective.PRESETS`, the five that chapter 12 forecasts
    "mean squared error plus KL",
    "pythae VAE, mse",
    "Lightning Bolts VAE",
    "a Gaussian decoder, sigma2 = 0.1",
    "PyTorch-VAE VanillaVAE",
)


def _forecast(what, data, n, k, hidden, epochs, batch_size):
    """A study of `LOSSES`: up to a factor each is the objective of a Gaussian VAE with sigma2 = theta."""
    thetas = [objective.read(loss, n=n, k=k).theta() for loss in LOSSES]
    members = tuple(Member(sigma2=theta, decay=1 / 3) for theta in thetas)
    network = partial(vae.mlp, n=n, hidden=hidden, k=k)
    plan = Plan(data=data, network=network, members=members, epochs=epochs, batch_size=batch_size)
    return Study(f"Chapter 12: how far a forecast holds, {what}", {"laptop": plan})


STUDIES = {
    "demo": Study(
        "Four noise variances on digits: the smaller, the fewer latents collapse",
        {
            "quick": Plan(
                data="digits",
                network=partial(vae.mlp, n=64, hidden=(128,), k=16),
                members=_fixed(rates=(2e-3,)),
                epochs=60,
                batch_size=64,
            ),
        },
    ),
    "mnist-fixed": Study(
        "Figures 3 and 4, Table 1: fixed noise variances",
        {
            "quick": Plan(**ON_DIGITS, members=_fixed(rates=(2e-3,))),
            "laptop": Plan(**ON_MNIST_BY_CPU, members=_fixed(rates=(1e-3,))),
            "paper": Plan(**ON_MNIST, members=_fixed(rates=RATES)),
        },
    ),
    "mnist-annealed": Study(
        "Figure 5: the same, with beta from 0 to 1",
        {
            "quick": Plan(**ON_DIGITS, members=_fixed(rates=(2e-3,), beta=LinearAnnealing(40))),
            "laptop": Plan(**ON_MNIST_BY_CPU, members=_fixed(rates=(1e-3,), beta=LinearAnnealing(50))),
            "paper": Plan(**ON_MNIST, members=_fixed(rates=RATES, beta=LinearAnnealing(100))),
        },
    ),
    "mnist-learned": Study(
        "Figure 6: noise variance learned, with and without annealing",
        {
            "quick": Plan(**ON_DIGITS, members=_learned(rates=(2e-3,), annealing=40)),
            "laptop": Plan(**ON_MNIST_BY_CPU, members=_learned(rates=(1e-3,), annealing=50)),
            "paper": Plan(**ON_MNIST, members=_learned(rates=RATES, annealing=100)),
        },
    ),
    "mnist-seeds": Study(
        "Figures 3 to 6, Table 1: three more seeds at the best learning rate",
        {"paper": _mnist_seeds},
    ),
    "mnist-sigma-init": Study(
        "Figure 6: where a learned noise variance starts",
        {
            "quick": Plan(**ON_DIGITS, members=_learned(rates=(2e-3,), annealing=40, starts=STARTS[1::2])),
            "paper": Plan(**ON_MNIST, members=_learned(rates=(1e-3,), annealing=100, starts=STARTS)),
        },
    ),
    **{
        f"mnist-sensitivity-{name}": Study(f"One choice changed: {name}", _changed(change))
        for name, change in CHANGES.items()
    },
    "faces-learned": Study(
        "Figures 7, 8, 10 and 11: convolutional VAEs on faces, noise variance learned, with and without annealing",
        {
            "quick": Plan(**ON_PATCHES, members=_learned(rates=(2e-3,), annealing=2, rule="closed form")),
            "laptop": Plan(
                **ON_FACES_BY_CPU, epochs=10, members=_learned(rates=(1e-3,), annealing=4, rule="closed form")
            ),
            "paper": Plan(**ON_FACES, members=_learned(rates=FACE_RATES, annealing=10, rule="closed form")),
        },
    ),
    "faces-fixed": Study(
        "Figure 9: the same with fixed noise variances",
        {
            "quick": Plan(**ON_PATCHES, members=_fixed(rates=(2e-3,))),
            "laptop": Plan(**ON_FACES_BY_CPU, epochs=4, members=_fixed(rates=(1e-3,))),
            "paper": Plan(**ON_FACES, members=_fixed(rates=FACE_RATES)),
        },
    ),
    "mnist-fixed-second-seed": Study(
        "Figures 3 and 4, Table 1: a second seed at the rate 3e-4",
        {"paper": Plan(**ON_MNIST, members=_fixed(rates=(3e-4,), seed=1))},
    ),
    "mnist-fixed-decayed": Study(
        "Beyond the paper: the learning rate 3e-4 falls to 0 over the last third, which tells slow from stuck",
        {
            "quick": Plan(**ON_DIGITS, members=_fixed(rates=(2e-3,), decay=1 / 3)),
            "paper": Plan(**ON_MNIST, members=_fixed(rates=(3e-4,), decay=1 / 3)),
        },
    ),
    "faces-adam": Study(
        "Figures 7 and 8: noise variance learned by Adam, from that of the best linear VAE",
        {"paper": _faces_adam},
    ),
    "forecast-digits": _forecast("8 x 8 digits", "digits", 64, 24, (256,), 400, 64),
    "forecast-mnist": _forecast("10,000 images of MNIST", "mnist-10000", 784, 64, (256,), 120, 128),
    "forecast-gaussian": _forecast("Gaussian data of that covariance", "mnist-gaussian", 784, 64, (256,), 120, 128),
    "forecast-patches": _forecast("8 x 8 colour patches of photographs", "patches-8", 192, 32, (256,), 120, 128),
    "forecast-table": _forecast("a table of 30 columns", "breast-cancer", 30, 16, (64,), 1200, 64),
    "faces-learned-longer": Study(
        "Figures 7, 8, 10 and 11: longer, at the best learning rate, two seeds",
        {"paper": partial(_longer, "faces-learned")},
    ),
    "faces-fixed-longer": Study(
        "Figure 9: longer, at the best learning rate, two seeds",
        {"paper": partial(_longer, "faces-fixed")},
    ),
}
