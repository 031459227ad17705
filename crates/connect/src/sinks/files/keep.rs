//! Staged files that are kept to be looked at: they get the names they would have been published under, in a folder below
//! the load's own staging folder, where an abort and a recovery find them. Staged objects lie there already.

use super::FilesSink;
use super::encoding::Encoding;
use super::layout::{STAGING, join, load_folder, split};
use super::place::{Place, at, blocking, make_folder};
use super::readable;
use super::typed::Typed;
use gristmill_model::spec::{ExtractSpec, FileFormat, OneOrMany};
use gristmill_model::{KeptRows, Result, Staged, StagedFile};

/// Where they are, in the load's staging folder.
const KEPT: &str = "kept";

impl FilesSink {
    pub(super) async fn keep_staged(&self, staged: &[Staged]) -> Result<Option<KeptRows>> {
        let folder = join(STAGING, &load_folder(&self.context.key, &self.context.owner));
        let files: Vec<StagedFile> = staged.iter().flat_map(|staged| staged.files.clone()).collect();
        let local = match &self.place {
            Place::Local(local) => local,
            // The bytes of an upload cannot be read before it is completed.
            Place::Remote(_) if !self.config.readable => return Ok(None),
            Place::Remote(remote) => {
                // What an attempt that was given up still writes would come after the sorting out.
                self.encoders.gone().await;
                readable::keep_only(remote, &load_folder(&self.context.key, &self.context.owner), &files).await?;
                let path = join(self.config.place(false).trim_end_matches('/'), &format!("{folder}/"));
                return Ok(Some(KeptRows { folder: None, extract: self.extract_of(path) }));
            }
        };
        let kept = local.path(&join(&folder, KEPT));
        let local = local.clone();
        let renamed = blocking(move || {
            for file in &files {
                let temporary = local.path(file.handle["temporary"].as_str().unwrap_or_default());
                make_folder(&kept.join(split(&file.path).0))?;
                let path = kept.join(&file.path);
                std::fs::rename(&temporary, &path).map_err(at(&path))?;
            }
            Ok(local.path(&folder).display().to_string())
        });
        Ok(Some(KeptRows { folder: Some(renamed.await?), extract: self.extract_of(format!("{KEPT}/")) }))
    }

    /// What reads the staged files of a folder.
    fn extract_of(&self, folder: String) -> ExtractSpec {
        let format = match &self.config.encoding {
            Encoding::Parquet { .. } => FileFormat::Parquet,
            Encoding::Csv { .. } => FileFormat::Csv,
            Encoding::Ndjson { .. } => FileFormat::Ndjson,
            Encoding::Typed { typed: Typed::Avro(_), .. } => FileFormat::Avro,
            Encoding::Typed { typed: Typed::Arrow(_), .. } => FileFormat::Arrow,
        };
        ExtractSpec { path: Some(OneOrMany(vec![folder])), format: Some(format), ..ExtractSpec::new("staged".into()) }
    }
}
