"""One file per filesystem that tells which of its bytes are in use.

Each reader is pure: `read(offset, length)` gives bytes of the image, `size` is the image's, and the answer is a list of
stretches in bytes, sorted and apart. What a reader does not understand, finds inconsistent, or would have to repair
first (a journal that waits) is MapUnreadable and nothing else: everything then counts as used, which is always right
and only slower. A map that calls a used byte free destroys data, so every doubt is an error here.
"""
