"""The constructed initialisation: a circuit that ranks injected tokens before any training.

Layer 0: every position learns its predecessor, all but item slots the user's coordinates, and quotation marks the mean
y of the history (`context`).
Layer 1: every slot fetches the first and the second token of its title, and notes its own logit; other tokens fetch the
first token of the title they are in, or were in last (`titles`, `logits`).
Layer 2: candidates look for titles of the history that begin like theirs. A path token that began several titles takes
up their second tokens by the logits noted; it and the path tokens after it take up where candidates stand that begin
so (`beginnings`).
Layer 3: the end of the prompt attends to candidates by their logit and takes up their first tokens, and by minus their
logit to push first tokens away; so the output embedding ranks the candidates, but for the overlap of token codes
(`logits`).
Layer 4: the same position reads its own ranking, and takes back from every candidate what others' codes lent it.
Layer 5: it does so once more; repeated tokens find what followed them, and path tokens what followed them near the
places taken up (`logits`, `copying`).

Ordinary initialisation does not find this circuit in minutes; trained from here it only has to be refined.

Two things explain most numbers of these modules.

*Layer norm.* Heads read normalised states, so a direction of the residual stream is read sqrt(hidden size) / |state| as
long as it is written. Medians over prompts of the default mixture, before training:

    layer   0     1     2     3     4     5
    words  13.3   7.4   6.1   5.6   5.6   5.6      title tokens
    quotes 13.3   8.4   8.0   8.0   6.2   7.1      opening ones; so the end of the prompt
    ends   13.3   6.9   6.6   6.2   6.2   6.2      closing ones
    start  13.4  12.9  12.8  12.7  12.7  12.7      of the text
    slots   3.2   3.2   2.8   2.8   2.8   2.8      their type alone has norm 6

In layer 0 a token is its embedding, of norm 1, and its position, of norm sqrt(16) * .27 = 1.08, hence
sqrt(384) / sqrt(1 + 1.08^2) = 13.3. Gains that write are divided by a nominal reading (13, 9, 7 or 6: `NOMINAL_*` of
`residual`), so that they are of the order of 1. Only the 13 is a reading; the others are of an architecture with
shorter slot types and stayed, because a search over gains sees but the quotient.

*Sinks.* Softmax has to put its weight somewhere. A head that has nothing to say at a position looks at the start of the
text, where it reads nothing: what it copies is empty there.

The gains themselves were found by random search for the least divergence of the untrained model. They are strengths, so
what each scales, and what score it makes, is what can be said of it.
"""
