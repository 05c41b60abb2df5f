"""What a run's weights are worth: validation after an epoch, test at the end, and what else there is to show."""

import torch

from lib import fit, inference
from lib.config import InputError


class Scores:
    """Of one run; `run` is its Trainer."""

    def __init__(self, run):
        self.run = run

    def of(self, split):
        run = self.run
        try:
            with run.autocast():
                return run.task.evaluate(run.model, split, run.recipe, run.world.add)
        except torch.OutOfMemoryError:
            raise InputError(fit.too_small_to_evaluate(run)) from None

    def validation(self) -> dict:
        """Of the row of an epoch; TEST_EACH_EPOCH adds test figures."""
        row, data = {}, self.run.data
        splits = {"validation": data.validation}
        if self.run.training.test_each_epoch:
            splits["test"] = data.test
        for name, split in splits.items():
            scores = self.of(split) if split else None
            row[f"{name}_loss"] = scores and scores.loss
            row[f"{name}_accuracy"] = scores and scores.accuracy
        return row

    def test(self) -> dict:
        """Test accuracy of the last and of the best weights: the only use of test data, unless TEST_EACH_EPOCH."""
        run = self.run
        run.enter("test")
        last = self.of(run.data.test)
        found = {"test_accuracy_last": last.accuracy, "test_loss_last": last.loss}
        if run.best:
            best = last
            if run.best.step != run.step:
                run.checkpoints.load_model(run.rundir.best)
                best = self.of(run.data.test)
            found |= {"test_accuracy_best": best.accuracy, "test_loss_best": best.loss}
        return found

    def shown(self) -> dict:
        """What else there is to say of the last weights."""
        run = self.run
        if run.best and run.best.step != run.step:  # the best ones have just been tested
            run.checkpoints.load_model(run.rundir.last)
        with run.autocast():
            found = run.task.shown(run.model, run.data, run.world.add)
            if run.training.inference_test:
                run.release()
                run.enter("inference")
                found["inference"] = inference.measure(run.model, run.data.example, run.device, run.world.leaders)
        return found
