"""Runs that measured inference: their memory then and in training, and how fast they answer by batch size."""

from lib.figure.base import Family, families, figure
from lib.figure.draw import hue_legend, line_legend, line_style, page
from lib.figure.memory import MEAN, about_seeds, both, in_mib
from lib.figure.panel import each_row, rows_height

INFERENCE = "inference_memory_mean"
DENSE_MATRICES = "Weights in dense matrices, zeros and all: nothing skips them"


@figure("training_inference_memory")
def training_inference_memory(results):
    for family in families(results, MEAN, INFERENCE):
        legends = [hue_legend(family, "optimizer"), line_legend(family, "optimizer")]
        foot = family.foot(*about_seeds(family), DENSE_MATRICES, *family.memory_notes(process=True))
        height = max(3.4, rows_height(family, "optimizer"))
        fig = page(10.5, height, "Memory in training and in inference, and speed of inference", foot, legends)
        left, right = fig.subplots(1, 2, width_ratios=(1.2, 1))
        both(left, family, INFERENCE, MEAN)
        where = in_mib(family, "mean").replace(" over training", "")
        left.set(title="From zero: inference (colour), training (grey)", xlabel=where)
        speed(right, family)
        yield f"training_inference_memory{family.suffix}", fig


def speed(ax, family: Family) -> None:
    """Samples a second over batch size, of one seed of each setting."""
    for _, s, hue in each_row(family, "optimizer"):
        batches = [m.batch for m in s.r.inference]
        ax.plot(
            batches,
            [m.samples_per_s for m in s.r.inference],
            marker="o",
            markersize=3,
            **line_style(family, s.r, hue),
        )
    ax.set_xscale("log", base=4)
    ax.set_yscale("log")
    every = sorted({m.batch for s in family.settings for m in s.r.inference})
    ax.set_xticks(every, [str(b) for b in every])
    ax.minorticks_off()
    ax.set(title="Throughput", xlabel="batch size, samples", ylabel="samples a second, log scale")
