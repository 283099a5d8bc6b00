"""What a solved program foretells, for people: groups, thresholds, advice."""

from layerpeel.reports.forecasts.advice import ForecastAdvice
from layerpeel.reports.forecasts.forecast import Forecast, forecast
from layerpeel.reports.forecasts.groups import GroupForecast, State
from layerpeel.reports.forecasts.thresholds import Thresholds

__all__ = [
    "Forecast",
    "ForecastAdvice",
    "GroupForecast",
    "State",
    "Thresholds",
    "forecast",
]
