"""`GET /about`."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import DeploymentOf, RuntimeOf
from service.api.schemas.about import About

SAMPLE_USERS = 12

router = APIRouter()


@router.get("/about", tags=["catalogue"])
async def get_about(runtime: RuntimeOf, deployment: DeploymentOf) -> About:
    """What is being served, and a few users to try."""
    manifest = deployment.bundle.manifest
    domain = manifest.prompt.domain
    return About(
        name=manifest.name,
        bundle_version=deployment.version,
        variant=deployment.variant,
        llm=manifest.llm.name,
        engine=runtime.settings.engine,
        backbone=manifest.backbone.kind,
        items=manifest.items,
        users=manifest.users,
        noun=domain.noun,
        verb=domain.verb,
        past=domain.past,
        genres=deployment.composer.genres,
        sample_user_ids=deployment.sample_users(SAMPLE_USERS),
    )
