//! Object stores: local disk, S3, Google Cloud Storage, Azure, HTTP.
