"""``record --on``: captures when it happens, by a small process of its own.

`conditions`: what to watch for; `signs`: how memory stands, by files of the kernel; `limits`: when
again; `process`: the process, whose memory is there and locked before it is needed.
"""
