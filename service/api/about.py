"""`GET /about`."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import ServingOf
from service.api.schemas.about import About, Signal, Worth

SAMPLE_USERS = 12

router = APIRouter()


@router.get("/about", tags=["catalogue"])
async def get_about(serving: ServingOf) -> About:
    """What is being served, what the LLM and each signal are worth here, and a few users to try."""
    deployment, settings = serving.deployment, serving.runtime.settings
    manifest = deployment.bundle.manifest
    domain, blends = manifest.prompt.domain, manifest.blends
    signals = sorted(blends.blend.signals, key=lambda signal: -signal.lift.ndcg[0] if signal.lift else 0.0)
    return About(
        name=manifest.name,
        bundle_version=deployment.version,
        variant=deployment.variant,
        llm=manifest.llm.name,
        engine=settings.engine,
        backbone=manifest.backbone.kind,
        items=manifest.items,
        users=manifest.users,
        noun=domain.noun,
        verb=domain.verb,
        past=domain.past,
        genres=deployment.composer.genres,
        sample_user_ids=deployment.sample_users(SAMPLE_USERS),
        ranker=settings.ranker,
        llm_lift=blends.llm_lift and Worth.of(blends.llm_lift),
        llm_lift_over_cf=blends.llm_lift_over_cf and Worth.of(blends.llm_lift_over_cf),
        llm_in_words=blends.llm_in_words,
        signals=[
            Signal(id=signal.id, title=signal.title, lift=signal.lift and Worth.of(signal.lift)) for signal in signals
        ],
        sources=list(blends.retrieval.sources),
        refitted=manifest.refitted,
    )
