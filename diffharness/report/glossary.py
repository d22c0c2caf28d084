"""The words of the report, each explained in one or two plain sentences."""

from __future__ import annotations

import re

GLOSSARY: dict[str, str] = {
    "baseline": "The model that the other one is compared with.",
    "candidate": "The model under test, often a fine-tune of the baseline.",
    "ancestor": "A third model from which both descend; latents new to either side are counted against it.",
    "gap": "Candidate minus baseline, in the unit of the score.",
    "interval": ("The range that holds the true value in 95 of 100 repetitions, by resampling documents in pairs."),
    "verdict": (
        "Improved or regressed: the interval excludes 0 and the gap reaches the smallest effect. No change: "
        "the interval lies within the smallest effect. Otherwise inconclusive: the documents can not tell."
    ),
    "smallest effect": "Gaps below this size are not called a change, however certain they are.",
    "surrogate": (
        "A smooth stand-in for the metric, for example the probability of the right choice. A gap can only "
        "be split along a path in a smooth quantity."
    ),
    "not tracked": "What the metric's gap has and the surrogate's has not. The account is silent about it.",
    "account": "The split of a task's surrogate gap into components. They add up to it, as far as completeness says.",
    "component": (
        "One part of a gap: the latents of a category, written or read, or the bias, the error, the prior; and the "
        "prompt, where the candidate was asked in a chat template of its own."
    ),
    "contribution": "How much a component adds to the surrogate's gap.",
    "written": "Part of a gap that stems from what the candidate writes differently at the compared layer.",
    "read": "Part of a gap that stems from how the layers above read the same state differently.",
    "interaction": (
        "By how much more counts as written when the candidate's upper layers come first than in the mean of both "
        "orders. It is already shared out over the components."
    ),
    "upper": "Part of a gap that arises in the layers above the compared one, in reports that do not split it.",
    "bias": "Part of a gap carried by the constant difference between the two models at the compared layer.",
    "error": "Part of a gap in what the crosscoder does not reconstruct. A large one weakens the account.",
    "prior": (
        "What the two models' upper layers make differently of unrelated texts: a shift of the answers regardless of "
        "content, where they differ as much on the task's own documents."
    ),
    "prompt": (
        "Part of a gap that stems from the candidate's own chat template in place of the baseline's. All other parts "
        "are of both models asked in the baseline's."
    ),
    "exact check": (
        "The candidate is scored again by lm-eval with the latents of a category put back to the baseline's "
        "version. The change in the real metric is what the category is worth there. Of the prompt it is the change "
        "from the baseline's chat template to the candidate's own."
    ),
    "share": "Contribution divided by the gap. Parts that work against the gap have a negative share.",
    "q-value": "A p-value corrected for the number of comparisons (Benjamini–Hochberg).",
    "crosscoder": "A dictionary that describes the activations of several models by one set of latents.",
    "latent": (
        "One direction of the crosscoder's dictionary. It has an activation on each token, and one decoder "
        "vector a model that says what it writes there."
    ),
    "Δnorm": (
        "Relative decoder norm: near 0 the latent writes only in the baseline, near 1 only in the candidate, "
        "near 0.5 in both alike."
    ),
    "ν^r": (
        "Latent scaling on the reconstruction: how much of the latent the other model's reconstruction "
        "needs. Near 0 the latent is specific to one model, near 1 it is shared."
    ),
    "ν^ε": (
        "Latent scaling on the error: how much of the latent hides in the other model's error. Near 0 nothing does."
    ),
    "specific": "A latent that one model uses and the other does not, by latent scaling.",
    "shared": "A latent that both models use.",
    "dead": "A latent that never fired on the held-out tokens.",
    "category": "What a group of latents stands for. Unclear is a category too.",
    "hypothesis": "What a latent is called is one: read off the texts it fires on, and wrong at times.",
    "annotator": "Who named the latents: probes, a language model, or a file of names.",
    "AUROC": "How well a latent tells the probes of its category from others: 0.5 is chance, 1 perfect.",
    "contrast": (
        "A text like a probe in topic, form and length, without what its category stands for. A latent of the category "
        "fires more on the probe than on its contrast; 50 % is chance."
    ),
    "detection score": (
        "A latent's name tried on held-out texts: how well it tells those on which the latent fires from others. "
        "Chance is what guessing scores."
    ),
    "κ": "How far two annotators give the same names, beyond chance: 0 is chance, 1 every name the same.",
    "matched": "A latent that the other seeds found again. One that is not may be an accident of training.",
    "density": "Share of held-out tokens on which a latent fires.",
    "presence": "How much of a latent either model alone holds on a token, in the unit of its activation.",
    "use": "How often and how strongly either model alone makes a latent fire, on the tokens of the tasks.",
    "clear": (
        "A clear name has an AUROC of 0.8 or more, and its probes have half or more of the latent's activation on all "
        "probes. Other names are weak: the latent fires more on that category, but not mainly."
    ),
    "mass": (
        "Acquired mass: how much more of a category's latents a tuned model holds than the ancestor, summed over the "
        "tokens of the same texts. Specific latents count whole, shared ones with what came on top. Shown as a share "
        "of all that the model acquired."
    ),
    "two crosscoders": "Each model has a crosscoder of its own with the ancestor; its specific latents are counted.",
    "three-way": "One crosscoder reads baseline, candidate and ancestor; each side's specific latents are counted.",
    "association": (
        "A latent fires more on documents that the candidate gains, or loses. It may do so without being why they are "
        "gained or lost."
    ),
    "near miss": "A text that came nearest to making a latent fire, and did not.",
    "promoted": (
        "Tokens that a latent's decoder vector makes more likely next, read directly through the model's own "
        "unembedding; suppressed ones it makes less likely. Approximate below the last layers."
    ),
    "template token": "A token of the chat template itself: it is there whatever the messages say.",
    "explained variance": "Share of the activations' variance that the crosscoder reconstructs, held out.",
    "L0": "Mean number of latents that are active on a token.",
    "decoder cosine": (
        "How alike the directions are that a latent writes in two models: 1 the same, 0 unrelated. Over latents that "
        "fired."
    ),
    "cross-entropy": "How badly a model predicts the next token, in nats a token; lower is better.",
    "ΔCE": (
        "How much worse a model predicts the next token when its activations are replaced by what the crosscoder "
        "reconstructs of them. Near 0 nothing that matters to the model is lost."
    ),
    "loss recovered": (
        "What the reconstruction saves of the cross-entropy that a model loses when its activations are replaced by "
        "zeros: 100 % is no loss, 0 % is as bad as zeros. Against the mean activation it is stricter."
    ),
    "stable": (
        "A latent is stable if a second training, from another seed, has one whose decoder points the same way. What "
        "no other seed finds may be an accident of training."
    ),
    "stale": (
        "A loaded crosscoder that explains this run's activations badly: it was made for others. What is said "
        "about latents may not hold."
    ),
    "completeness": (
        "How far the components are from adding up to each document's gap, relative to its parts: the error "
        "of the path integral. Nothing is filled in to close it."
    ),
    "replay": (
        "Both models read again exactly the tokens that lm-eval scored. Their upper layers, run from the stored "
        "activations, must give the answers that were scored, else the account would not be of those scores."
    ),
    "control": "The same account with the latents' names shuffled, or with a random encoder: it should fail.",
}


def anchor(word: str) -> str:
    """The id of a word in the HTML glossary."""
    plain = word.lower().replace("Δ", "delta-").replace("δ", "delta-").replace("ν", "nu-").replace("ε", "epsilon")
    return "word-" + re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
