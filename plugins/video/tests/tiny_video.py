"""Options that make an experiment a matter of seconds."""

TINY = [
    "trainer.steps=2",
    "trainer.batch_size=2",
    "trainer.workers=0",
    "trainer.precision=fp32",
    "trainer.validate_examples=2",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=2",
    "prior_trainer.workers=0",
    "prior_trainer.precision=fp32",
    "prior_trainer.validate_examples=2",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "encoder.hidden=4",
    "decoder.hidden=4",
    "prior.hidden=8",
    "prior.layers=2",
    "prior.head=8",
]
