"""Runs that measured inference: their memory then and in training, and how fast they answer by batch size."""

from lib.figure.base import Family, families, figure
from lib.figure.draw import fill, hue_legend, line_legend, line_style, page
from lib.figure.memory import MEAN, about_seeds, in_mib
from lib.figure.panel import each_row, number, row_axis, rows_height

INFERENCE = "inference_memory_mean"
DENSE_MATRICES = "Weights in dense matrices, zeros and all: nothing skips them"


@figure("training_inference_memory")
def training_inference_memory(results):
    for family in families(results, MEAN, INFERENCE):
        legends = [hue_legend(family, "optimizer"), line_legend(family)]
        foot = family.foot(*about_seeds(family), DENSE_MATRICES, *family.memory_notes())
        height = max(3.4, rows_height(family, "optimizer"))
        fig = page(10.5, height, "Memory in training and in inference, and speed of inference", foot, legends)
        left, right = fig.subplots(1, 2, width_ratios=(1.2, 1))
        memory(left, family)
        speed(right, family)
        yield f"training_inference_memory{family.suffix}", fig


def memory(ax, family: Family) -> None:
    """Mean over training in grey, behind the mean over inference."""
    for y, s, hue in each_row(family, "optimizer"):
        training, inference = s.mean(MEAN), s.mean(INFERENCE)
        ax.barh(y, training, height=0.74, color="#e2e2e2", edgecolor="#999999", linewidth=0.6)
        ax.barh(y, inference, height=0.46, **fill(family, s.r, hue))
        number(ax, max(training, inference), y, f"{training:.0f} | {inference:.0f}", 4)
    ax.set_xlim(0, 1.35 * max(s.mean(f) for s in family.settings for f in (MEAN, INFERENCE)))
    ax.set(title="Training (grey) | inference (colour)", xlabel=in_mib(family, "mean").replace(" over training", ""))
    row_axis(ax, family, "optimizer")


def speed(ax, family: Family) -> None:
    """Samples a second over batch size, of one seed of each setting."""
    for _, s, hue in each_row(family, "optimizer"):
        batches = [m["batch"] for m in s.r.inference]
        ax.plot(
            batches,
            [m["samples_per_s"] for m in s.r.inference],
            marker="o",
            markersize=3,
            **line_style(family, s.r, hue),
        )
    ax.set_xscale("log", base=4)
    ax.set_yscale("log")
    every = sorted({m["batch"] for s in family.settings for m in s.r.inference})
    ax.set_xticks(every, [str(b) for b in every])
    ax.minorticks_off()
    ax.set(title="Throughput", xlabel="batch size, samples", ylabel="samples a second, log scale")
