//! Taking requests apart: axum's extractors, with problem documents for what does not fit.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Problem};

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// The parameters after the question mark.
pub(super) struct Query<T>(pub(super) T);

/// The parameters in the path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = axum::Json::<T>::from_request(request, state).await;
        read.map(|json| Self(json.0)).map_err(body_problem)
    }
}

fn body_problem(rejection: JsonRejection) -> Problem {
    let kind = match rejection.status().as_u16() {
        413 => Kind::TooLarge,
        415 => Kind::NotJson,
        _ => Kind::BadRequest,
    };
    let detail = match kind {
        Kind::NotJson => "send the body as JSON, with `Content-Type: application/json`".to_owned(),
        Kind::TooLarge => format!("a request has at most {} bytes", super::BODY_BYTES_MAX),
        _ => rejection.body_text(),
    };
    Problem::new(kind, detail)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let problem = |rejection: QueryRejection| Problem::new(Kind::BadRequest, rejection.body_text());
        read.map(|query| Self(query.0)).map_err(problem)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let problem = |rejection: PathRejection| Problem::new(Kind::BadRequest, rejection.body_text());
        read.map(|path| Self(path.0)).map_err(problem)
    }
}
