"""Several processes, on one host or many, that run one program together.

    processes.join("node1:1234,2,0")        this is the first of two; "" asks the cluster
    items = processes.share(number)
    items.following()                       the place of the next item that nobody has begun
    items.exchanged(results)                what all of them found, in order
    processes.leave()

Process 0 leads: it alone runs the program to its end. The others work on what it shares out, and
end when it does. Messages are bytes of npz files, never pickles.

One trap: every process sees the devices of all in ``jax.devices()``; a computation that is not
spread runs on the process's own.
"""

from meanfield.processes.joining import join as join
from meanfield.processes.joining import leave as leave
from meanfield.processes.joining import placed as placed
from meanfield.processes.parcels import packed as packed
from meanfield.processes.parcels import unpacked as unpacked
from meanfield.processes.sharing import Over as Over
from meanfield.processes.sharing import Share as Share
from meanfield.processes.sharing import check as check
from meanfield.processes.sharing import leads as leads
from meanfield.processes.sharing import share as share
from meanfield.processes.sharing import together as together
