"""What the benchmark programs of this folder share.

    machine      what the figures were taken on; dropping the kernel's caches
    workspace    one temporary place, and the promise that nothing of it is left behind
    processes    run a program and time it, with a deadline, without a busy wait
    corpus       the seeded trees and the big file that everybody is measured on
    probe        a small child process that makes storms of system calls and times only the calls
    sdmount      our own mount, driven through its commands as a person would
    filesystems  native, ours and the peers: how each shows a directory under another path
    workloads    what is done to each of them
    report       medians of ratios, one table, the aims beside it
    pair         two mounts of ours that become devices of one library; syncthing: its peer
    mount_bench, scan_bench, million_bench, …  the programs; search_library and link_ends run in the project's Python

Imports point down this list's lower half to its upper half, never back. Only the standard library is used: a
benchmark that needs an installation is a benchmark nobody runs.
"""
