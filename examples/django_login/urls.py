"""The site's addresses."""

from __future__ import annotations

from django.urls import path

from examples.django_login import views

urlpatterns = [
    path("", views.page),
    path("login/", views.log_in),
    path("logout/", views.log_out),
    path("who/", views.who),
]
