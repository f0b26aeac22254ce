"""Training of the codec `pilc`: predictors and code book by clustering, then the decoder network by gradients."""
