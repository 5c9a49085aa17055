"""What the page "Is your VAE collapsing?" and the picture of the landing page are filled with, all from the package."""

import html
import json

import numpy as np
import readme_picture
from sklearn.datasets import load_breast_cancer, load_wine

from helpers import celeba, data, objective, records, spectrum, standing
from helpers.forecast import score_eigenvalues
from helpers.moments import Moments
from helpers.verdict import VERDICTS

REMEDIES = {  # what to change, by the verdict
    "asked for": "the loss, as the calculator says",
    "worse than linear": "the training: its learning rate, its length",
    "another unit would pay": "train on while latents are idle; where none is, give it more",
    "parked at free bits": "take them away, and ask for the nats by a smaller θ",
    "memorising": "fewer latents, or more data",
    "settled": "nothing",
    "measured only": "compare ELBOs, on held-out data",
}
KEPT = 1024  # eigenvalues of a spectrum; of the others the sum


def recorded(title, eigenvalues, count, kind="image", **more):
    """A spectrum as the page reads it; `kind` says how its values may be scaled."""
    top = [float(f"{value:.10g}") for value in eigenvalues[:KEPT]]
    sizes = {"n": eigenvalues.size, "count": count, "rank": int(np.count_nonzero(eigenvalues))}
    return {"title": title, "kind": kind, **sizes, "top": top, "rest": float(eigenvalues[KEPT:].sum()), **more}


def pictures(title, moments):
    """The spectrum of images in [0, 1], with the variance of all their values and the Bernoulli threshold."""
    spread = moments.covariance.trace() / moments.mean.size + moments.mean.var()
    threshold = float(score_eigenvalues(moments)[0])
    return recorded(title, moments.eigenvalues, moments.count, spread=spread, bernoulli=threshold)


def standardised(title, bunch):
    """The spectrum of a table, each column about its mean and divided by its deviation."""
    x = bunch.data
    moments = Moments.from_samples((x - x.mean(axis=0)) / x.std(axis=0))
    return recorded(title, moments.eigenvalues, len(x), kind="table")


def spectra():
    """All that the page's menu offers."""
    patches = data.patches(16).reshape(-1, 16 * 16 * 3) / 255
    faces, count = celeba.eigenvalues()
    return {
        "mnist": pictures("MNIST, 28 × 28", data.mnist_moments()),
        "digits": pictures("digits, 8 × 8 (scikit-learn)", Moments.from_samples(data.digits())),
        "faces": recorded("faces, 64 × 64 in colour (CelebA)", faces, count, kind="pixels"),
        "patches": pictures("pieces of photographs, 16 × 16 in colour", Moments.from_samples(patches)),
        "breast-cancer": standardised("breast cancer, a table of 30 columns", load_breast_cancer()),
        "wine": standardised("wine, a table of 13 columns", load_wine()),
    }


def numbers():
    """The data of the page as a script that is no program."""
    words = {
        "presets": objective.PRESETS,
        "terms": objective.TERMS,
        "said": objective.SAID,
        "grammar": objective.GRAMMAR,
    }
    found = {"spectra": spectra(), **words}
    text = json.dumps(found, ensure_ascii=False).replace("<", "\\u003c")
    return f'\n<script type="application/json" id="your-vae-data">{text}</script>\n'


def picture():
    """The picture of the landing page: the README's, which the page's script makes alive."""
    eigenvalues = Moments.from_samples(data.digits()).eigenvalues[: readme_picture.SHOWN]
    given = json.dumps(
        {"eigenvalues": [round(float(value), 6) for value in eigenvalues], "start": readme_picture.NOISE[0]}
    )
    alt = (
        f"The {readme_picture.SHOWN} largest eigenvalues of the digits' covariance as bars of falling height, "
        "and two dashed lines, noise variances: the latents whose bars are higher are alive."
    )
    return f"""
```{{raw}} html
<div class="theta-picture" data-numbers='{given}'>
<img src="../_static/{readme_picture.PLACE.name}" width="640" alt="{html.escape(alt)}">
</div>
<script defer src="../_static/your_vae.js"></script>
```
"""


def verdicts():
    """The words of `helpers.diagnose`, what each means and what to change."""
    rows = (f"| **{verdict}** | {meaning} | {REMEDIES[verdict]} |" for verdict, meaning in VERDICTS.items())
    return "\n".join(["", "| verdict | what it means | what to change |", "|---|---|---|", *rows, ""])


def thumb():
    """A table of the recorded runs on MNIST: what the linear theory forecasts, and what was measured."""
    eigenvalues = data.mnist_moments().eigenvalues
    lines = [
        "| σ² | λ > θ | above 0.1 nats | KL, linear | KL | error, linear | error | ELBO above the linear | the run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in filter(None, (records.largest("mnist-fixed"), records.begun("mnist-fixed", "paper"))):
        k, floors = record.sizes["unit"], standing.linear_floor(record, eigenvalues)
        for m in records.best(record):
            run = record.isel(member=m)
            theta = float(run.set_sigma2)
            cells = (
                f"{theta:g}",
                f"{spectrum.active(eigenvalues[:k], theta).sum()} of {k}",
                f"{(run.kl_per_unit > 0.1).sum().item()}",
                f"{spectrum.kl(eigenvalues[:k], theta).sum():.1f}",
                f"{run.kl.item():.1f}",
                f"{spectrum.distortion(eigenvalues, k, theta):.2f}",
                f"{run.sse.item():.2f}",
                f"{run.elbo.item() - floors[m]:+,.0f}",
                records.label(record).partition(":")[0],
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["", ":::{table}", ":class: thumb", "", *lines, ":::", ""])


def parts():
    """What to fill in: (page, place, text)."""
    return (
        ("your_vae.md", "spectra", numbers()),
        ("your_vae.md", "verdicts", verdicts()),
        ("your_vae.md", "thumb", thumb()),
        ("intro.md", "picture", picture()),
    )
