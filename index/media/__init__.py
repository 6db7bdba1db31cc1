"""What stands in files, and what is made of them: fields, thumbnails. Decoders run in confined processes only.

The daemon imports pipeline, driving, registry and sidecars; whatever imports a decoder is imported by workers.
"""
