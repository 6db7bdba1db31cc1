"""How the kernel sees the library: FUSE requests in, answers out, invalidations up."""
