from __future__ import annotations

from django.urls import path

from payments.views import methods, standing, webhooks

urlpatterns = [
    path("invoices/<int:pk>/payment", standing.InvoicePayment.as_view(), name="invoice-payment"),
    path("standing", standing.Standing.as_view(), name="standing"),
    path("payment-methods", methods.PaymentMethods.as_view(), name="payment-methods"),
    path("payment-methods/<int:pk>", methods.PaymentMethodDetail.as_view(), name="payment-method"),
    path(
        "payment-methods/<int:pk>/default",
        methods.DefaultPaymentMethod.as_view(),
        name="payment-method-default",
    ),
    path("webhook/stripe", webhooks.stripe_webhook, name="stripe-webhook"),
]
