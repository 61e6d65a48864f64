//! Execute: carries out one step on the node. No policy: what to do and in which order is decided elsewhere.

use std::sync::Arc;

use appbase_core::claims::Scope;
use appbase_core::v1::Source;
use controller_core::plan::Step;
use controller_core::v1::compute::CreateInstance;
use kit::faults::point;
use kit::keys::Signer;
use node::{Compute, ComputeError};

use crate::points;
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

pub(crate) async fn execute(
    compute: Arc<dyn Compute>,
    repository: Repository,
    signer: Option<Signer>,
    step: Step,
) -> Result<(), ExecuteError> {
    match step {
        Step::Create(mut request) => {
            if let Some(signer) = signer {
                request.config.token = instance_token(&signer, &request);
            }
            ensure_image(&*compute, &repository, &request).await?;
            compute.create(&request).await?;
            point(points::CREATED);
            compute.start(&request.id).await?;
            point(points::STARTED);
        }
        Step::Start { id, .. } => compute.start(&id).await?,
        Step::Stop { id, grace, .. } => {
            compute.stop(&id, grace).await?;
            point(points::STOPPED);
        }
        Step::Remove { id, .. } => {
            compute.remove(&id).await?;
            point(points::REMOVED);
        }
    }
    Ok(())
}

/// What an instance shows the repository: it reads its own release and nothing else, for as long as it lives.
fn instance_token(signer: &Signer, request: &CreateInstance) -> String {
    let config = &request.config;
    let tag = format!("{}-r{}", config.environment, config.release);
    signer.sign(config.instance.as_str(), Scope::Release { app: config.app.clone(), tag }, None)
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
