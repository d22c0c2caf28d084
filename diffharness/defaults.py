"""The defaults of a run, in one place and free of imports, so that `--help` can show them at once."""

LAYER = "0.5"
"""A fraction of depth, or an index."""
AUTO_RULE = (
    "the first layer that carries half of the tasks' real gaps (their sizes added up; measured by giving the "
    "baseline's state to the candidate's layers above), or the one that carries most; never the last layer, and the "
    "middle one where no gap is real"
)
"""What `--layer auto` picks."""
DEPTH_DOCUMENTS = 32
"""Documents a task that the layers are looked at with."""
EXPANSION = 4
"""Crosscoder latents a dimension of the residual stream."""
MINIMUM_K, MAXIMUM_K, WIDTH_PER_K = 8, 100, 32
"""Wanted mean number of active latents a token: the width over `WIDTH_PER_K`, within these."""
SPARSITY = "batch_topk"
TRAIN_TOKENS = 400_000
"""Tokens harvested from the corpora, a tenth of them held out."""
BATCH_SIZE = 32
"""lm-eval's batch size, for both models alike."""
SMALLEST_EFFECT = 0.02
"""Gaps of a bounded metric below this are not called a change."""
ATTRIBUTION_DOCUMENTS, DEMO_ATTRIBUTION_DOCUMENTS = 100, 48
"""Documents a task that its gap is accounted for on."""
REFERENCE_TEXTS = 256
"""Texts that documents are read against, one a document: where the line starts that splits what is read."""
CONTROL_DOCUMENTS = 32
"""The same where the account is done again as a control: another encoder, other seeds."""
RANDOM_SETS, FEWEST_RANDOM_SETS = 24, 19
"""Random sets of latents that every claim is tried against; with fewer than 19 none can be beaten at 5 %."""
SHAPLEY = "likelihood"
"""Tasks whose categories get Shapley values: those scored by log-likelihoods."""
SEED = 0
SHIFT_PROTOCOL = "three-way"
"""What the category shift is read from first; `tests/benchmarks/latents.py` measures which is the most reliable."""
ANNOTATOR = "probe"
ANNOTATE = 200
"""Latents that an annotating model is asked about."""
NU_RECONSTRUCTION, NU_ERROR = 0.5, 0.2
"""Below these ratios of latent scaling, ν^r and ν^ε, a latent is specific to a model (Minder et al. 2504.02922)."""
RANDOM_ENCODER_LATENTS = 16_384
"""Up to so many latents the account is tried with a random encoder: fitting its decoders takes memory that grows with
their square."""
OUTPUT = "reports/run"
DEMO_OUTPUT = "reports/demo"


def crosscoder_size(d_model: int, latents: int | None, k: int | None) -> tuple[int, int]:
    """Latents and k of a crosscoder over models of a width, where they are not given."""
    latents = latents or EXPANSION * d_model
    return latents, min(k or min(max(d_model // WIDTH_PER_K, MINIMUM_K), MAXIMUM_K), latents)
