"""Programs that improve from data and from their own records: data, metrics, evaluation, optimizers, experiments."""
