// What somebody is told of, what the workbook shows, and what the month may cost.
param location string
param tags object
param token string
param workspaceId string
param namespaceId string
param topicId string
param siteId string
param alertEmail string
param monthlyBudget int
param budgetStart string

var told = empty(alertEmail) ? [] : [team.id]
var toldOfMetrics = empty(alertEmail) ? [] : [{ actionGroupId: team.id }]

// Rest on the platform's own metrics and on log lines: nothing that a renamed metric could silence.
var queries = [
  {
    name: 'silent-timers'
    description: 'The timer sweep has not succeeded for half an hour: jobs that stand still find no help. Deploy again, or restart the app.'
    severity: 1
    operator: 'LessThan'
    threshold: 1
    window: 'PT30M'
    query: '''
      AppTraces | where Message startswith "Executed 'Functions.sweep' (Succeeded"
    '''
  }
  {
    name: 'not-started'
    description: 'Settings or keys that the service does not start with: the log line says what to mend.'
    severity: 1
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
    query: '''
      AppTraces | where Message startswith '[NOT_STARTED]'
    '''
  }
  {
    name: 'failing-functions'
    description: 'Invocations that failed, and not because their instance was taken away.'
    severity: 2
    operator: 'GreaterThan'
    threshold: 20
    window: 'PT15M'
    // The host logs a failed invocation with its exception, and such a line is no row of AppTraces.
    query: '''
      AppExceptions
      | where OuterMessage startswith 'Exception while executing function: Functions.'
      | where InnermostMessage !has 'exited with code 143'
    '''
  }
  {
    name: 'out-of-order'
    description: 'An endpoint, storage, the bus, a ledger or the collector has refused or failed for more than ten minutes: the log line says what to mend.'
    severity: 1
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT30M'
    // A process says so every ten minutes, and so does each new one: a blip is told once.
    query: '''
      AppTraces
      | where Message startswith '[OUT_OF_ORDER] '
      | parse Message with '[OUT_OF_ORDER] ' Subject ' is out of order: ' *
      | summarize First = min(TimeGenerated), Last = max(TimeGenerated) by Subject
      | where Last - First >= 9m
    '''
  }
  {
    name: 'webhooks-given-up'
    description: 'A receiver was not told of the end of a batch: the log line says why.'
    severity: 3
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
    query: '''
      AppTraces | where Message startswith '[WEBHOOK_GIVEN_UP] '
    '''
  }
]

resource team 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(alertEmail)) {
  name: 'ag-${token}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'phi3-batch'
    enabled: true
    emailReceivers: [
      {
        name: 'mail'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

// The least of a quarter of an hour: handlers take dead letters back, so that there is one now and
// then means nothing.
resource deadLetters 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'dead-letters'
  location: 'global'
  tags: tags
  properties: {
    description: 'Dead letters have stayed for a quarter of an hour: neither their functions nor the sweep took them.'
    severity: 1
    enabled: true
    scopes: [namespaceId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'stayed'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'DeadletteredMessages'
          dimensions: [{ name: 'EntityName', operator: 'Include', values: ['jobs', 'shards', 'webhooks'] }]
          timeAggregation: 'Minimum'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: toldOfMetrics
  }
}

resource stuck 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for queue in ['jobs', 'shards', 'webhooks']: {
    name: 'stuck-${queue}'
    location: 'global'
    tags: tags
    properties: {
      description: 'Messages have waited on ${queue} for half an hour, and none was completed.'
      severity: 1
      enabled: true
      scopes: [namespaceId]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT30M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'waiting'
            metricNamespace: 'Microsoft.ServiceBus/namespaces'
            metricName: 'ActiveMessages'
            dimensions: [{ name: 'EntityName', operator: 'Include', values: [queue] }]
            timeAggregation: 'Minimum'
            operator: 'GreaterThan'
            threshold: 0
          }
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'none-completed'
            metricNamespace: 'Microsoft.ServiceBus/namespaces'
            metricName: 'CompleteMessage'
            dimensions: [{ name: 'EntityName', operator: 'Include', values: [queue] }]
            timeAggregation: 'Total'
            operator: 'LessThanOrEqual'
            threshold: 0
          }
        ]
      }
      actions: toldOfMetrics
    }
  }
]

resource lostEvents 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for metric in ['DeadLetteredCount', 'DroppedEventCount']: {
    name: 'events-${toLower(metric)}'
    location: 'global'
    tags: tags
    properties: {
      description: 'Event Grid gave up telling of files: see the container event-dead-letters.'
      severity: 1
      enabled: true
      scopes: [topicId]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'given-up'
            metricNamespace: 'Microsoft.EventGrid/systemTopics'
            metricName: metric
            timeAggregation: 'Total'
            operator: 'GreaterThan'
            threshold: 0
          }
        ]
      }
      actions: toldOfMetrics
    }
  }
]

resource logAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for alert in queries: {
    name: alert.name
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: alert.name
      description: alert.description
      severity: alert.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: 'PT15M'
      windowSize: alert.window
      autoMitigate: true
      // The tables are made with the first rows that the app sends.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: alert.query
            timeAggregation: 'Count'
            operator: alert.operator
            threshold: alert.threshold
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: told }
    }
  }
]

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'phi3-batch')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Phi-3 batch worker'
    category: 'workbook'
    version: 'Notebook/1.0'
    sourceId: workspaceId
    serializedData: replace(
      replace(
        replace(loadTextContent('workbook.json'), '<namespace>', namespaceId),
        '<topic>',
        topicId
      ),
      '<site>',
      siteId
    )
  }
}

resource budget 'Microsoft.Consumption/budgets@2023-11-01' = if (monthlyBudget > 0) {
  name: 'budget-${token}'
  properties: {
    category: 'Cost'
    amount: monthlyBudget
    timeGrain: 'Monthly'
    timePeriod: { startDate: budgetStart }
    notifications: {
      forecast: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: empty(alertEmail) ? [] : [alertEmail]
        contactRoles: ['Owner']
      }
      spent: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 90
        thresholdType: 'Actual'
        contactEmails: empty(alertEmail) ? [] : [alertEmail]
        contactRoles: ['Owner']
      }
    }
  }
}
