"""Training of the lossy profiles: a rate-distortion-computation family of transform codecs, and a light one."""
