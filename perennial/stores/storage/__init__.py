"""The project's storage: a folder of this machine, or a prefix of a bucket.

``places`` says where it is, ``objects`` reads and writes single files, ``publishing`` puts whole
folders there, ``cache`` has them here again, ``faults`` says in words what went wrong.
"""
