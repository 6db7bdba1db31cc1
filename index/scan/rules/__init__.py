"""Rules: which entries are held back from identification, search and previews, and by what. Pure but for the files of
git that it reads.

A rule never hides a file from the mount. This room knows no database and no daemon: names and a directory's descriptor
go in, the number of a rule comes out.
"""
