"""The contract between training and serving: one immutable folder, addressed by its digest."""
