//! Execute: carries out one step on the node. No policy: what to do and in which order is decided elsewhere.

use std::sync::Arc;

use appbase_core::v1::Source;
use controller_core::plan::Step;
use controller_core::v1::compute::CreateInstance;
use node::{Compute, ComputeError};

use crate::repository::Repository;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecuteError {
    #[error(transparent)]
    Compute(#[from] ComputeError),
    #[error("image of {app} cannot be fetched")]
    Image {
        app: String,
        #[source]
        source: kit::problem::Problem,
    },
}

pub(crate) async fn execute(compute: Arc<dyn Compute>, repository: Repository, step: Step) -> Result<(), ExecuteError> {
    match step {
        Step::Create(request) => {
            ensure_image(&*compute, &repository, &request).await?;
            compute.create(&request).await?;
            compute.start(&request.id).await?;
        }
        Step::Start { id, .. } => compute.start(&id).await?,
        Step::Stop { id, grace, .. } => compute.stop(&id, grace).await?,
        Step::Remove { id, .. } => compute.remove(&id).await?,
    }
    Ok(())
}

/// An image source is loaded into an engine that does not have it: from the repository, streamed.
async fn ensure_image(
    compute: &dyn Compute,
    repository: &Repository,
    request: &CreateInstance,
) -> Result<(), ExecuteError> {
    let Source::Image { archive, image } = &request.source else { return Ok(()) };
    if compute.has_image(image).await? {
        return Ok(());
    }
    let app = &request.labels.app;
    let stream = repository
        .stream(app, *archive)
        .await
        .map_err(|source| ExecuteError::Image { app: app.to_string(), source })?;
    Ok(compute.load_image(stream, image).await?)
}
