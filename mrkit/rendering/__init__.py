"""The verb `render`: a fitted field on another grid."""
