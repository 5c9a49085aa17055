"""The picture of the README: the eigenvalues of the digits as bars, and which of them two noise variances leave alive.

python book/readme_picture.py     writes book/_static/digits.svg
"""

from pathlib import Path

from helpers import data
from helpers.moments import Moments

PLACE = Path(__file__).parent / "_static" / "digits.svg"
SHOWN = 20
NOISE = (0.3, 0.1)
WIDTH, HEIGHT, LEFT, BOTTOM, STEP, SCALE = 640, 300, 50, 260, 28, 330  # pixels; SCALE of them to one unit of variance


def picture():
    """The SVG as text; heights are whole pixels, so it is the same on every machine."""
    eigenvalues = Moments.from_samples(data.digits()).eigenvalues[:SHOWN]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for i, eigenvalue in enumerate(eigenvalues):
        height = round(eigenvalue * SCALE)
        place = f'x="{LEFT + i * STEP}" y="{BOTTOM - height}" width="{STEP - 8}" height="{height}"'
        lines.append(f'<rect {place} fill="#0072B2"/>')
    for noise in NOISE:
        y = BOTTOM - round(noise * SCALE)
        alive = (eigenvalues > noise).sum()
        lines.append(
            f'<path d="M{LEFT - 6} {y}H{WIDTH - 20}" stroke="#D55E00" stroke-width="2" stroke-dasharray="7 5"/>'
        )
        words = f"σ² = {noise}: {alive} of {SHOWN} latents alive"
        lines.append(f'<text x="{WIDTH - 20}" y="{y - 6}" text-anchor="end">{words}</text>')
    lines.append(f'<text x="{LEFT}" y="{BOTTOM + 24}">the {SHOWN} largest eigenvalues of the digits’ covariance</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PLACE.write_text(picture(), encoding="utf-8")
